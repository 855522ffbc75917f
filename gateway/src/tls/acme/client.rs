//! HTTP client for ACME servers, and the errors in their responses. The client is built on [`http_client`], and
//! returns responses in the form that instant-acme expects.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use openssl::error::ErrorStack;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::util::http_client;
use crate::util::http_client::chain;

/// Timeout of an exchange, from the connection to the last byte of the response.
const LIMIT: Duration = Duration::from_secs(30);
/// Maximum size of a response. No ACME response is larger: a chain holds only a few certificates.
const MAX_BYTES: usize = 1 << 20;

type Http = http_client::Http<BodyWrapper<Bytes>>;

/// HTTP client for one order. Clones share its connections.
#[derive(Clone)]
pub(super) struct AcmeClient {
    http: Http,
    retry_after: Arc<Mutex<Option<Duration>>>,
}

impl AcmeClient {
    /// Creates a client that trusts servers whose certificate was issued by one of `roots` (DER). If `roots`
    /// is empty, the client trusts the system's roots.
    ///
    /// # Errors
    /// Returns an error if OpenSSL refuses a root.
    pub(super) fn new(roots: &[Vec<u8>]) -> Result<AcmeClient, ErrorStack> {
        Ok(AcmeClient { http: http_client::client(roots)?, retry_after: Arc::default() })
    }

    /// Returns the wait that the last response asked for (RFC 9110 10.2.3), and forgets it. `None` if there is no
    /// such wait.
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
                // The response comes from an intermediary before the ACME server, or instant-acme does not expect a
                // problem document in it.
                let problem = serde_json::from_slice(&body).ok().filter(|_| is_problem);
                let detail =
                    problem.map_or_else(String::new, |problem| format!(": {}", problem_text(&problem)));
                return Err(format!("answered with {}{detail}", head.status));
            }
            Ok(BytesResponse { parts: head, body: Box::new(body) })
        };
        let outcome = timeout(LIMIT, exchange).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no complete response within {LIMIT:?}")));
        outcome.map_err(|reason| Error::Other(format!("{what}: {reason}").into()))
    }
}

impl HttpClient for AcmeClient {
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

/// Returns the value of `Retry-After`, which is a number of seconds or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Returns a problem document as one line: its detail, its type, and its subproblems for single names.
pub(super) fn problem_text(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("a problem without a type");
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let mut text = match &problem.detail {
        Some(detail) => format!("{detail} ({kind})"),
        None => kind.to_owned(),
    };
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    text
}

/// Runs a step, and repeats it up to ten times if the server refuses the nonce (RFC 8555 6.5). The refused step had
/// no effect. instant-acme itself repeats a request only twice; a server under load, or a test, may refuse more
/// nonces.
macro_rules! retry_bad_nonce {
    ($step:expr) => {{
        let mut left = 10_u8;
        loop {
            match $step.await {
                Err(error) if left > 0 && $crate::tls::acme::client::is_bad_nonce(&error) => left -= 1,
                outcome => break outcome,
            }
        }
    }};
}

/// Error of an order.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried}: {reason}")]
pub(super) struct OrderError {
    tried: String,
    reason: String,
    /// Wait that the server asks for before the next request; `None` if the server asks for none.
    pub(super) asked_to_wait: Option<Duration>,
    /// True if the server does not know the account any more.
    pub(super) account_unknown: bool,
}

impl OrderError {
    /// Creates an error that the server did not report.
    pub(super) fn new(tried: impl Into<String>, reason: impl ToString) -> Self {
        OrderError {
            tried: tried.into(),
            reason: reason.to_string(),
            asked_to_wait: None,
            account_unknown: false,
        }
    }

    /// Adds the wait that the last response to `client` asked for, if the error does not contain a wait already.
    #[must_use]
    pub(super) fn heeding(mut self, client: &AcmeClient) -> Self {
        self.asked_to_wait = self.asked_to_wait.or_else(|| client.asked_to_wait());
        self
    }

    /// Creates an error for a request of `client` that failed, at the server or on the way to the server.
    pub(super) fn from_server(tried: impl Into<String>, error: &Error, client: &AcmeClient) -> Self {
        let reason = match error {
            Error::Api(problem) => problem_text(problem),
            other => other.to_string(),
        };
        let account_unknown = is(error, "accountDoesNotExist");
        OrderError { account_unknown, ..OrderError::new(tried, reason) }.heeding(client)
    }
}

/// Returns true if the server refused a nonce.
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    is(error, "badNonce")
}

/// Returns true if the server reported a problem of the type `kind`.
fn is(error: &Error, kind: &str) -> bool {
    let Error::Api(problem) = error else { return false };
    let of = problem.r#type.as_deref().and_then(|of| of.strip_prefix("urn:ietf:params:acme:error:"));
    of == Some(kind)
}
pub(super) use retry_bad_nonce;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_accepts_seconds_and_dates() {
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
