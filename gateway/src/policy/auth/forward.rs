//! Another server is asked whether a request may pass, as other gateways do it: a GET with what is known about the
//! request, and with its credentials. 2xx lets it pass; 401, 403 and redirects go to the client; whatever else comes,
//! or nothing, lets nobody pass.
//!
//! Cookies of its answer go to the client in each of these cases: an auth server renews sessions when it lets requests
//! pass, and a client that does not get the new cookie is logged out when the old one expires.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
use crate::util::http_client;
use crate::util::http_client::{Answer, BodilessClient};

/// The longest answer whose connection is kept; nobody reads it.
const MAX_BYTES: usize = 64 * 1024;
/// The longest value of a field that is passed on, and how much all together: a backend takes some 8 KiB of header, and
/// what clients send is in it too.
const MAX_VALUE: usize = 4 * 1024;
const MAX_TOLD: usize = 16 * 1024;
/// The most bytes of cookies that go to the client. A cookie may have 4 KiB (RFC 6265 6.1), and sessions that are larger
/// are split over several.
const MAX_COOKIES: usize = 16 * 1024;
/// So many may be asked at once, or a server that hangs would have all requests pile up here.
const MAX_INFLIGHT: usize = 256;
/// How long an answer may take, where the table does not say.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What the server is told besides the request's own credentials.
pub struct AuthRequest<'a> {
    /// The request.
    pub request: &'a RequestHeader,
    /// Its path as it was routed, and as the backend gets it before the route changes it.
    pub path: &'a str,
    /// Who asks.
    pub client: Option<IpAddr>,
    /// Whether by HTTPS.
    pub is_https: bool,
    /// For which host.
    pub host: Option<&'a str>,
    /// The request's id.
    pub id: &'a HeaderValue,
}

/// The compiled table, of this kind.
pub(super) struct Forward {
    url: Uri,
    http: BodilessClient,
    limit: Duration,
    response_headers: Vec<HeaderName>,
    challenge: Challenge,
    room: Semaphore,
    complaints: Seldom,
}

/// What goes wrong with each request is not said with each of them: the access log counts them.
struct Seldom {
    begun: Instant,
    /// In which second something was said last.
    last: AtomicU64,
}

impl Seldom {
    fn may(&self) -> bool {
        let now = self.begun.elapsed().as_secs() + 1;
        self.last.swap(now, Ordering::Relaxed) != now
    }
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
            complaints: Seldom { begun: Instant::now(), last: AtomicU64::new(0) },
        }
    }

    /// Who asks.
    pub(super) fn check(&self, asked: &AuthRequest<'_>) -> Checked<'_> {
        if let Credentials::Several = one(&asked.request.headers, &header::AUTHORIZATION) {
            // It might look at one of them, and the backend at another.
            return Checked::refused(self.challenge.several("there are several Authorization fields"));
        }
        let Ok(room) = self.room.try_acquire() else {
            return Checked::refused(unavailable("too many requests wait for whoever decides"));
        };
        let question = self.question(asked);
        Checked::Later(Box::pin(async move {
            let _room = room;
            let answer = match question {
                Ok(question) => http_client::ask(&self.http, question, self.limit, MAX_BYTES).await,
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
                if self.complaints.may() {
                    warn!(url = %self.shown(), %reason, "nobody says whether a request may pass: it may not");
                }
                Verdict::Reply(unavailable("whoever decides does not answer as it should"))
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
        // Over HTTP/2 cookies may come in crumbs, and HTTP/1 has one field (RFC 9113 8.2.3).
        let crumbs: Vec<&[u8]> =
            asked.request.headers.get_all(header::COOKIE).iter().map(|crumb| crumb.as_bytes()).collect();
        if !crumbs.is_empty() {
            question = question.header(header::COOKIE, crumbs.join(&b"; "[..]));
        }
        question.body(Empty::new())
    }

    /// Who may pass, by a 2xx with these fields.
    ///
    /// # Errors
    /// What could not be passed on of them.
    fn identity(&self, headers: &HeaderMap) -> Result<Identity, String> {
        let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).into_iter().cloned().collect();
        let size: usize = cookies.iter().map(HeaderValue::len).sum();
        if size > MAX_COOKIES {
            return Err(format!("the cookies of its answer have {size} bytes; at most {MAX_COOKIES}"));
        }
        Ok(Identity::told(self.told(headers)?, cookies))
    }

    /// What backends are told: each field once, and no more of them than a backend takes.
    ///
    /// # Errors
    /// The field that nobody could pass on: of two values a backend takes one, and the log the other.
    fn told(&self, headers: &HeaderMap) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let mut told = Vec::with_capacity(self.response_headers.len());
        for name in &self.response_headers {
            let mut values = headers.get_all(name).into_iter();
            match (values.next(), values.next()) {
                (None, _) => {}
                (Some(_), Some(_)) => {
                    return Err(format!(
                        "the field {name} of its answer is there twice; expected one, with commas in it"
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

    /// What the client is told: the server's decision in the gateway's words, with the fields that lead on.
    fn refusal(&self, answer: &Answer) -> Reply {
        let location = answer.headers.get(header::LOCATION).filter(|_| is_redirect(answer.status));
        let mut reply = match (answer.status, location) {
            (status, Some(location)) => Reply::redirect_with(status, location.clone()),
            (StatusCode::UNAUTHORIZED, _) => self.challenge.missing("credentials are needed that count here"),
            (StatusCode::FORBIDDEN, _) => {
                Reply::new(Problem::NotAllowed, "this may not be done by whoever asks")
            }
            (status, _) => {
                if self.complaints.may() {
                    warn!(url = %self.shown(), %status, "this does not say whether a request may pass: it may not");
                }
                return unavailable("whoever decides does not answer as it should");
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

    /// Its URL, for the log.
    fn shown(&self) -> String {
        shown_url(&self.url.to_string()).into_owned()
    }
}

/// A host as it was routed, with its port.
fn in_one_form(authority: &str) -> Option<String> {
    let host = normalise_host(authority).ok()?;
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let port = port.filter(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    Some(port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}")))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 302 | 303 | 307 | 308)
}
