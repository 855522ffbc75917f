//! # Basic auth
//!
//! With Basic authentication (RFC 7617) a client sends `Authorization: Basic …`, where the dots are
//! `user:password` in base64. That is no encryption: it is worth something over TLS only. Without the right
//! credentials the answer is 401 Unauthorized with `WWW-Authenticate`, which makes a browser ask for them.
//!
//! Two traps: the word `Basic` may be written in any case, and `==` on secrets stops at the first difference,
//! so that the time it takes tells an attacker how much was right.
//!
//! **Your task**: write `authorized`, and take the credentials away before the request goes up: the upstream has
//! no use for them, and its logs even less.

use std::net::SocketAddr;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use openssl::base64::encode_block;
use openssl::{memcmp, sha};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;

/// Forwards requests to one upstream, for those who know the password.
pub struct BasicAuth {
    upstream: SocketAddr,
    /// What follows the word `Basic` in the field of a client that may pass.
    expected: String,
}

/// Whether the two are equal, in a time that does not depend on where they differ.
fn equal_in_constant_time(a: &str, b: &str) -> bool {
    // Of equal length, whatever went in; no two texts with the same hash are known.
    memcmp::eq(&sha::sha256(a.as_bytes()), &sha::sha256(b.as_bytes()))
}

impl BasicAuth {
    /// Lets `user` with `password` pass.
    pub fn new(upstream: SocketAddr, user: &str, password: &str) -> BasicAuth {
        BasicAuth { upstream, expected: encode_block(format!("{user}:{password}").as_bytes()) }
    }

    /// Whether the value of an Authorization field is the right one.
    pub fn authorized(&self, authorization: &str) -> bool {
        // TODO: is the scheme Basic, and what follows it `self.expected`?
        equal_in_constant_time(authorization, "nobody") && self.expected.is_empty()
    }
}

#[async_trait]
impl ProxyHttp for BasicAuth {
    type CTX = ();
    fn new_ctx(&self) {}

    /// Returns whether the request has been answered here.
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
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        _request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        // TODO: the credentials go no further.
        Ok(())
    }
}
