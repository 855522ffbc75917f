//! # Basic auth
//!
//! With Basic authentication (RFC 7617), a client sends `Authorization: Basic …`, where the dots stand for
//! `user:password` in base64. Base64 is not encryption, so Basic authentication protects something only over
//! TLS. Without the right credentials, the answer is 401 Unauthorized with a field `WWW-Authenticate`. This
//! field makes a browser ask the user for the credentials.
//!
//! There are two traps. The word `Basic` may be written in upper or lower case. And `==` on secrets stops at
//! the first difference, so the time it takes tells an attacker how much of a guess was right. It is easy to
//! forget this. So the secret is not a `String`, but a type of its own, `Secret`, for which `==` does not
//! compile. (The compiler will suggest to derive `PartialEq`. This is how a wall gets a hole.)
//!
//! **Your task**: write `authorized`, and remove the credentials before the request goes to the upstream. The
//! upstream does not need them, and they must not get into its logs.

use std::net::SocketAddr;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use openssl::base64::encode_block;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;

use crate::peer::peer;
pub use secret::Secret;

mod secret {
    use openssl::{memcmp, sha};

    /// Text that clients have to know. Only this module can read it, and it offers no `==`.
    pub struct Secret([u8; 32]);

    impl Secret {
        /// Returns the secret `text`. Only its hash is kept.
        pub fn new(text: &str) -> Secret {
            Secret(sha::sha256(text.as_bytes()))
        }

        /// Returns true if `guess` is the secret. The time it takes does not depend on where they differ.
        pub fn matches(&self, guess: &str) -> bool {
            // Hashes have the same length for all texts. No two texts with the same hash are known.
            memcmp::eq(&self.0, &sha::sha256(guess.as_bytes()))
        }
    }
}

/// Proxy that forwards requests to one upstream, for clients that know the password.
pub struct BasicAuth {
    upstream: SocketAddr,
    /// Credentials in base64: the text that must follow the word `Basic`.
    expected: Secret,
}

impl BasicAuth {
    /// Returns a proxy that lets `user` with `password` pass.
    pub fn new(upstream: SocketAddr, user: &str, password: &str) -> BasicAuth {
        let credentials = encode_block(format!("{user}:{password}").as_bytes());
        BasicAuth { upstream, expected: Secret::new(&credentials) }
    }

    /// Returns true if `authorization`, the value of an Authorization field, is the right one.
    pub fn authorized(&self, authorization: &str) -> bool {
        // TODO: is the scheme Basic, and is the rest what `self.expected` holds? For now, no credentials are right.
        self.expected.matches(authorization) && authorization.is_empty()
    }
}

#[async_trait]
impl ProxyHttp for BasicAuth {
    type CTX = ();
    fn new_ctx(&self) {}

    /// Returns true if it has answered the request itself. The request then goes to no upstream.
    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        let authorization = session.req_header().headers.get(AUTHORIZATION);
        if authorization.and_then(|value| value.to_str().ok()).is_some_and(|value| self.authorized(value)) {
            return Ok(false);
        }
        let mut response = ResponseHeader::build(401, None)?;
        response.insert_header("WWW-Authenticate", "Basic realm=\"workshop\", charset=\"UTF-8\"")?;
        response.insert_header("Content-Length", "0")?;
        session.write_response_header(Box::new(response), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        _request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        // TODO: remove the credentials.
        Ok(())
    }
}
