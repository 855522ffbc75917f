//! Authentication by an auth server, as other gateways do it. The gateway sends a GET with facts about the
//! request and with its credentials. If the auth server answers 2xx, the request passes. A 401, 403 or redirect
//! refuses the request and is returned to the client. Without one of these responses the client gets 503.
//!
//! With each of these decisions the client also gets the auth server's cookies, because the auth server may
//! renew a session when it lets a request pass. Without the new cookie the client would be logged out when the
//! old cookie expires.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use pingora::http::RequestHeader;
use tokio::sync::Semaphore;
use tracing::warn;

use super::challenge::{Challenge, unavailable};
use super::{Checked, Credentials, Identity, one};
use crate::config::{normalise_host, shown_url};
use crate::reply::{Problem, Reply, Verdict};
use crate::util::http_client::{Answer, BodilessClient};
use crate::util::{clock, http_client};

/// Minimum time between two log lines, because a fault may affect every request. The access log has all of
/// these requests.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Maximum size of a response body, in bytes. The gateway reads the body only to reuse the connection.
const MAX_BYTES: usize = 64 * 1024;
/// Maximum size of one value of the fields that a backend gets, and of all these fields together, in bytes. A
/// backend accepts some 8 KiB of header, including the client's fields.
const MAX_VALUE: usize = 4 * 1024;
const MAX_TOLD: usize = 16 * 1024;
/// Maximum size of all cookies for the client, in bytes: a cookie may have 4 KiB (RFC 6265 6.1), so auth
/// servers split large sessions over several cookies.
const MAX_COOKIES: usize = 16 * 1024;
/// Maximum number of concurrent requests to the auth server. Without a limit, requests would pile up here while
/// the auth server hangs.
const MAX_INFLIGHT: usize = 256;
/// Default timeout for the response of the auth server.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A request whose credentials are checked, with facts about the request.
pub struct AuthRequest<'a> {
    /// Head of the request, with the credentials.
    pub request: &'a RequestHeader,
    /// Path of the request, in the form in which the backend gets it if the route does not rewrite it.
    pub path: &'a str,
    /// Address of the client; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// True if the client uses HTTPS.
    pub is_https: bool,
    /// Host that the request names.
    pub host: Option<&'a str>,
    /// Id of the request.
    pub id: &'a HeaderValue,
}

/// Compiled `[auth]` table of the kind `forward`.
pub(super) struct Forward {
    url: Uri,
    http: BodilessClient,
    limit: Duration,
    response_headers: Vec<HeaderName>,
    challenge: Challenge,
    room: Semaphore,
    complaints: clock::Every,
}

impl Forward {
    pub(super) fn new(config: &crate::config::Auth, url: Uri, http: BodilessClient) -> Self {
        Forward {
            url,
            http,
            limit: config.timeout_ms.map_or(TIMEOUT, |time| time.duration()),
            response_headers: config.response_headers.iter().map(|name| name.0.clone()).collect(),
            challenge: Challenge::new("Bearer", &config.realm, ""),
            room: Semaphore::new(MAX_INFLIGHT),
            complaints: clock::Every::default(),
        }
    }

    /// Asks the auth server. Returns the identity of the client, or the refusal.
    pub(super) fn check(&self, asked: &AuthRequest<'_>) -> Checked<'_> {
        if let Credentials::Several = one(&asked.request.headers, &header::AUTHORIZATION) {
            // The auth server might use one of the fields, and the backend the other.
            return Checked::refused(self.challenge.several("there are several Authorization fields"));
        }
        let Ok(room) = self.room.try_acquire() else {
            return Checked::refused(unavailable("too many requests wait for the auth server"));
        };
        let question = self.question(asked);
        Checked::Later(Box::pin(async move {
            let _room = room;
            let answer = match question {
                Ok(question) => http_client::fetch(&self.http, question, self.limit, MAX_BYTES).await,
                Err(error) => Err(error.to_string()),
            };
            self.verdict(answer)
        }))
    }

    fn verdict(&self, answer: Result<Answer, String>) -> Verdict<Arc<Identity>> {
        let identity = match answer {
            Ok(answer) if answer.status.is_success() => self.identity(&answer.headers),
            Ok(answer) => return Verdict::Reply(self.refusal(&answer)),
            Err(reason) => Err(reason),
        };
        match identity {
            Ok(identity) => Verdict::Continue(Arc::new(identity)),
            Err(reason) => {
                if self.complaints.is_due(clock::now(), WARN_EVERY) {
                    warn!(
                        url = %self.shown(),
                        %reason,
                        "the auth server did not decide, so the request is refused"
                    );
                }
                Verdict::Reply(unavailable("the auth server does not answer correctly"))
            }
        }
    }

    fn question(&self, asked: &AuthRequest<'_>) -> http::Result<Request<Empty<Bytes>>> {
        let query = asked.request.uri.query();
        let target = query.map_or_else(|| asked.path.to_owned(), |query| format!("{}?{query}", asked.path));
        let mut question = Request::get(self.url.clone())
            .header(header::USER_AGENT, "gateway")
            .header("x-forwarded-method", asked.request.method.as_str())
            .header("x-forwarded-uri", target)
            .header("x-forwarded-proto", if asked.is_https { "https" } else { "http" })
            .header("x-request-id", asked.id);
        if let Some(host) = asked.host.and_then(in_one_form) {
            question = question.header("x-forwarded-host", host);
        }
        if let Some(client) = asked.client {
            question = question.header("x-forwarded-for", client.to_string());
        }
        if let Some(credentials) = asked.request.headers.get(header::AUTHORIZATION) {
            question = question.header(header::AUTHORIZATION, credentials);
        }
        // Over HTTP/2 each cookie may have a separate field; HTTP/1 has one field for all (RFC 9113 8.2.3).
        let crumbs: Vec<&[u8]> =
            asked.request.headers.get_all(header::COOKIE).iter().map(|crumb| crumb.as_bytes()).collect();
        if !crumbs.is_empty() {
            question = question.header(header::COOKIE, crumbs.join(&b"; "[..]));
        }
        question.body(Empty::new())
    }

    /// Returns the identity that the header fields of a 2xx response describe.
    ///
    /// # Errors
    /// Returns a description of the fault if the fields or the cookies cannot be passed on.
    fn identity(&self, headers: &HeaderMap) -> Result<Identity, String> {
        let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).into_iter().cloned().collect();
        let size: usize = cookies.iter().map(HeaderValue::len).sum();
        if size > MAX_COOKIES {
            return Err(format!("the cookies of its answer have {size} bytes; at most {MAX_COOKIES}"));
        }
        Ok(Identity::told(self.told(headers)?, cookies))
    }

    /// Returns the fields for the backend: each field at most once, and all within the size limits.
    ///
    /// # Errors
    /// Returns a description of a field that is too large or occurs twice. The backend might use one of two
    /// values, and the access log the other.
    fn told(&self, headers: &HeaderMap) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let mut told = Vec::with_capacity(self.response_headers.len());
        for name in &self.response_headers {
            let mut values = headers.get_all(name).into_iter();
            match (values.next(), values.next()) {
                (None, _) => {}
                (Some(_), Some(_)) => {
                    return Err(format!(
                        "the field {name} of its answer occurs twice; expected one field, with commas \
                         between its values"
                    ));
                }
                (Some(value), None) if value.len() > MAX_VALUE => {
                    return Err(format!("the field {name} of its answer has more than {MAX_VALUE} bytes"));
                }
                (Some(value), None) => told.push((name.clone(), value.clone())),
            }
        }
        let size: usize = told.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > MAX_TOLD {
            return Err(format!("the fields of its answer have {size} bytes; at most {MAX_TOLD}"));
        }
        Ok(told)
    }

    /// Returns the local reply for a refusal: the auth server's status with the gateway's own text, and with
    /// the fields for the client's next step (Location, WWW-Authenticate, Set-Cookie).
    fn refusal(&self, answer: &Answer) -> Reply {
        let location = answer.headers.get(header::LOCATION).filter(|_| is_redirect(answer.status));
        let mut reply = match (answer.status, location) {
            (status, Some(location)) => Reply::redirect_with(status, location.clone()),
            (StatusCode::UNAUTHORIZED, _) => {
                self.challenge.missing("the auth server requires valid credentials")
            }
            (StatusCode::FORBIDDEN, _) => {
                Reply::new(Problem::NotAllowed, "the auth server does not allow this request")
            }
            (status, _) => {
                if self.complaints.is_due(clock::now(), WARN_EVERY) {
                    warn!(
                        url = %self.shown(),
                        %status,
                        "the auth server answered with a status that is not a decision, so the request is \
                         refused"
                    );
                }
                return unavailable("the auth server does not answer correctly");
            }
        };
        let fields = reply.fields_mut();
        if answer.headers.contains_key(header::WWW_AUTHENTICATE) {
            fields.remove(header::WWW_AUTHENTICATE);
        }
        for name in [header::WWW_AUTHENTICATE, header::SET_COOKIE] {
            for value in answer.headers.get_all(&name) {
                fields.append(&name, value.clone());
            }
        }
        reply
    }

    /// Returns the auth server's URL without the parts that must not be logged.
    fn shown(&self) -> String {
        shown_url(&self.url.to_string()).into_owned()
    }
}

/// Returns the normalised host with its port; `None` if the host is not valid.
fn in_one_form(authority: &str) -> Option<String> {
    let host = normalise_host(authority).ok()?;
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let port = port.filter(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    Some(port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}")))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 302 | 303 | 307 | 308)
}
