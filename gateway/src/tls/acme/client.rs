//! How an ACME server is spoken to: as other servers are that are no backends, and with the answers that
//! instant-acme expects.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use openssl::error::ErrorStack;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::problem::problem_text;
use crate::util::http_client;
use crate::util::http_client::chain;

/// From the connection to the last byte of an answer.
const LIMIT: Duration = Duration::from_secs(30);
/// No answer of ACME is larger: a chain has a few certificates.
const MAX_BYTES: usize = 1 << 20;

type Http = http_client::Http<BodyWrapper<Bytes>>;

/// A client for one order. Cloning it shares its connections.
#[derive(Clone)]
pub(super) struct Client {
    http: Http,
    retry_after: Arc<Mutex<Option<Duration>>>,
}

impl Client {
    /// A client that believes a server whose certificate comes from one of `roots` (DER), or from one of the
    /// system's where there are none.
    ///
    /// # Errors
    /// Where OpenSSL takes none of them.
    pub(super) fn new(roots: &[Vec<u8>]) -> Result<Client, ErrorStack> {
        Ok(Client { http: http_client::client(roots)?, retry_after: Arc::default() })
    }

    /// How long the last answer asked to wait (RFC 9110 10.2.3), once.
    pub(super) fn asked_to_wait(&self) -> Option<Duration> {
        self.retry_after.lock().take()
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let what = format!("{} {}", request.method(), request.uri());
        let is_signed = request.method() == Method::POST;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| chain(&error))?;
            let (head, body) = response.into_parts();
            *self.retry_after.lock() = retry_after(&head.headers);
            let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| chain(&*error))?;
            let is_failure = head.status.is_client_error() || head.status.is_server_error();
            let body = body.to_bytes();
            let is_problem = is_problem(&head.headers);
            if is_failure && !(is_problem && is_signed) {
                // From something before the ACME server, or to a question after which instant-acme expects no
                // problem.
                let problem = serde_json::from_slice(&body).ok().filter(|_| is_problem);
                let detail =
                    problem.map_or_else(String::new, |problem| format!(": {}", problem_text(&problem)));
                return Err(format!("answered with {}{detail}", head.status));
            }
            Ok(BytesResponse { parts: head, body: Box::new(body) })
        };
        let outcome = timeout(LIMIT, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no whole answer within {LIMIT:?}")));
        outcome.map_err(|reason| Error::Other(format!("{what}: {reason}").into()))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().exchange(request))
    }
}

fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/problem+json"))
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_by_a_date() {
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
            retry_after(&headers)
        };
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = asked(&date).unwrap();
        assert!(wait > Duration::from_secs(90) && wait <= Duration::from_secs(100), "{wait:?}");
        for nonsense in ["", "soon", "-1"] {
            assert_eq!(asked(nonsense), None);
        }
    }
}
