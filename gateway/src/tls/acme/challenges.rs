//! What an ACME server that checks a name is answered: over plain HTTP (RFC 8555 8.3), or in a handshake (RFC 8737).
//! An answer is there while its order waits for the check, and not a moment longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use openssl::ssl::SslContext;
use parking_lot::RwLock;
use pingora::http::RequestHeader;

use crate::reply::Reply;

/// Where an ACME server looks (RFC 8555 8.3).
const PATH: &str = "/.well-known/acme-challenge/";

/// The answers that are given now.
#[derive(Default)]
pub struct Challenges {
    /// The key authorizations that are to be found by HTTP, by token.
    http: Answers<Arc<str>>,
    /// What the handshakes of validations are made with, by name.
    tls: Answers<SslContext>,
}

/// Answers, and whether there are any: nearly always there are none, and that costs one load to know.
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
    /// The key authorization for `token`, if an order waits for it to be asked for.
    pub fn http(&self, token: &str) -> Option<Arc<str>> {
        self.http.get(token)
    }

    /// The answer to `request` where it is an ACME server that checks a name. It goes before everything else: the
    /// server follows the name and knows no route, and no virtual host need be there yet. Whatever else is below
    /// that path is a request like any other; backends may have an ACME client of their own.
    pub fn answer(&self, request: &RequestHeader) -> Option<Reply> {
        if !self.http.any() || !matches!(request.method, Method::GET | Method::HEAD) {
            return None;
        }
        let token = request.uri.path().strip_prefix(PATH)?;
        Some(Reply::content("application/octet-stream", self.http(token)?.as_bytes().to_vec()))
    }

    /// Whether a handshake may be that of a validation. Only then need anybody look.
    pub fn has_tls(&self) -> bool {
        self.tls.any()
    }

    /// What the handshake of a validation of `name` is made with.
    pub(super) fn tls(&self, name: &str) -> Option<SslContext> {
        self.tls.get(&name.to_ascii_lowercase())
    }

    /// Answers `token` with `authorization` until what is returned is dropped.
    pub fn publish_http(self: &Arc<Self>, token: &str, authorization: &str) -> Published {
        self.http.change(|answers| {
            answers.insert(token.to_owned(), authorization.into());
        });
        Published { challenges: self.clone(), key: token.to_owned(), is_http: true }
    }

    /// Makes handshakes of validations of `name` with `context` until what is returned is dropped.
    pub(super) fn publish_tls(self: &Arc<Self>, name: &str, context: SslContext) -> Published {
        let key = name.to_ascii_lowercase();
        self.tls.change(|answers| {
            answers.insert(key.clone(), context);
        });
        Published { challenges: self.clone(), key, is_http: false }
    }
}

/// An answer that is given until this is dropped.
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
    fn an_answer_is_there_as_long_as_its_order_waits() {
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
    fn nothing_else_is_answered() {
        let challenges = Arc::new(Challenges::default());
        let _published = challenges.publish_http("token", "token.thumbprint");
        for path in ["/", "/token", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/token/x"] {
            assert_eq!(status(&challenges, "GET", path), None, "{path}");
        }
        assert_eq!(status(&challenges, "POST", "/.well-known/acme-challenge/token"), None);
        assert!(!challenges.has_tls());
    }
}
