//! # Security headers
//!
//! Some header fields make browsers careful. A proxy adds them to every response, so that no upstream can
//! forget them. But not every response comes from an upstream: the errors that the proxy makes itself never
//! pass `response_filter`.
//!
//! **Your task**: add `HEADERS` to what comes from upstreams, in place of what they say under these names, and
//! to errors.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::protocols::http::error_resp::gen_error_response;
use pingora::proxy::FailToProxy;

/// What every response must have.
pub const HEADERS: [(&str, &str); 3] = [
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
];

/// Forwards every request to one upstream, and makes browsers careful.
pub struct SecurityHeaders {
    /// Where to.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for SecurityHeaders {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        // TODO: what comes from the upstream.
        Ok(())
    }

    /// Writes the error that the client gets when no upstream has answered.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut ()) -> FailToProxy {
        let error_code = if let HTTPStatus(status) = error.etype() { *status } else { 502 };
        let response = gen_error_response(error_code);
        // TODO: what the proxy says itself. (`insert_header` returns a Result, and `?` has nowhere to go here: `let _ =`
        // says that nothing is left to be done about an error.)
        // Where this fails the client has left, and nobody is there to be told.
        let _ = session.write_error_response(response, Bytes::new()).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }
}
