//! Answers to an ACME server that validates a name: over plain HTTP (RFC 8555 8.3), or in a TLS handshake
//! (RFC 8737). An answer is published only while its order waits for the validation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use openssl::ssl::SslContext;
use parking_lot::RwLock;
use pingora::http::RequestHeader;

use crate::reply::Reply;

/// Path below which an ACME server looks for an answer (RFC 8555 8.3).
const PATH: &str = "/.well-known/acme-challenge/";

/// Currently published answers to validations.
#[derive(Default)]
pub struct Challenges {
    /// Key authorizations for HTTP-01, by token.
    http: Answers<Arc<str>>,
    /// TLS contexts for the handshakes of TLS-ALPN-01, by name.
    tls: Answers<SslContext>,
}

/// Map of answers. `any` is false if the map is empty, so that a lookup then costs one load. The map is nearly always
/// empty.
struct Answers<A> {
    any: AtomicBool,
    by_key: RwLock<HashMap<String, A>>,
}

impl<A> Default for Answers<A> {
    fn default() -> Self {
        Answers { any: AtomicBool::new(false), by_key: RwLock::default() }
    }
}

impl<A: Clone> Answers<A> {
    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn get(&self, key: &str) -> Option<A> {
        if self.any() { self.by_key.read().get(key).cloned() } else { None }
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, A>)) {
        let mut answers = self.by_key.write();
        change(&mut answers);
        self.any.store(!answers.is_empty(), Ordering::Relaxed);
    }
}

impl Challenges {
    /// Returns the key authorization for `token`; `None` if no order waits for its validation.
    pub fn http(&self, token: &str) -> Option<Arc<str>> {
        self.http.get(token)
    }

    /// Returns the answer to `request` if an ACME server uses this request to validate a name. The gateway calls this
    /// before it chooses a virtual host: the ACME server knows no routes, and the virtual host may not exist yet. A
    /// request for an unknown token below this path is treated like any other request, because a backend may itself
    /// have an ACME client.
    pub fn answer(&self, request: &RequestHeader) -> Option<Reply> {
        if !self.http.any() || !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        let token = request.uri.path().strip_prefix(PATH)?;
        Some(Reply::content("application/octet-stream", self.http(token)?.as_bytes().to_vec()))
    }

    /// Returns true if a handshake may be a validation. If false, the caller need not examine the ClientHello.
    pub fn has_tls(&self) -> bool {
        self.tls.any()
    }

    /// Returns the TLS context that answers a validation of `name`; `None` if no order waits for one.
    pub(super) fn tls(&self, name: &str) -> Option<SslContext> {
        self.tls.get(&name.to_ascii_lowercase())
    }

    /// Answers requests for `token` with `authorization` until the returned guard is dropped.
    pub fn publish_http(self: &Arc<Self>, token: &str, authorization: &str) -> Published {
        self.http.change(|answers| {
            answers.insert(token.to_owned(), authorization.into());
        });
        Published { challenges: self.clone(), key: token.to_owned(), is_http: true }
    }

    /// Answers validations of `name` with `context` until the returned guard is dropped.
    pub(super) fn publish_tls(self: &Arc<Self>, name: &str, context: SslContext) -> Published {
        let key = name.to_ascii_lowercase();
        self.tls.change(|answers| {
            answers.insert(key.clone(), context);
        });
        Published { challenges: self.clone(), key, is_http: false }
    }
}

/// Guard of a published answer; the answer is withdrawn when the guard is dropped.
pub struct Published {
    challenges: Arc<Challenges>,
    key: String,
    is_http: bool,
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.is_http {
            self.challenges.http.change(|answers| {
                answers.remove(&self.key);
            });
        } else {
            self.challenges.tls.change(|answers| {
                answers.remove(&self.key);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(challenges: &Challenges, method: &str, path: &str) -> Option<u16> {
        let request = RequestHeader::build(method, path.as_bytes(), None).unwrap();
        challenges.answer(&request).map(|reply| reply.status())
    }

    #[test]
    fn published_answer_is_withdrawn_when_guard_drops() {
        let challenges = Arc::new(Challenges::default());
        let published = challenges.publish_http("token", "token.thumbprint");
        let other = challenges.publish_http("other", "other.thumbprint");
        assert_eq!(challenges.http("token").as_deref(), Some("token.thumbprint"));
        for method in ["GET", "HEAD"] {
            assert_eq!(status(&challenges, method, "/.well-known/acme-challenge/token?x"), Some(200));
        }
        drop(published);
        assert_eq!(challenges.http("token"), None);
        assert!(challenges.http("other").is_some());
        drop(other);
        assert!(!challenges.http.any());
    }

    #[test]
    fn request_without_published_token_gets_no_answer() {
        let challenges = Arc::new(Challenges::default());
        let _published = challenges.publish_http("token", "token.thumbprint");
        for path in ["/", "/token", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/token/x"] {
            assert_eq!(status(&challenges, "GET", path), None, "{path}");
        }
        assert_eq!(status(&challenges, "POST", "/.well-known/acme-challenge/token"), None);
        assert!(!challenges.has_tls());
    }
}
