//! # Security headers
//!
//! Some header fields tell browsers to be careful. A proxy adds them to every response, so that no upstream
//! can forget them. But not every response comes from an upstream: the proxy makes error responses itself,
//! and these never pass `response_filter`.
//!
//! **Your task**: add `HEADERS` to the responses of upstreams, and to errors. If an upstream already sends
//! fields with these names, replace them.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::protocols::http::error_resp::gen_error_response;
use pingora::proxy::FailToProxy;

use crate::peer::peer;

/// Header fields that every response must have.
pub const HEADERS: [(&str, &str); 3] = [
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
];

/// Proxy that forwards every request to one upstream, and adds fields that make browsers careful.
pub struct SecurityHeaders {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for SecurityHeaders {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        // TODO: add the fields to the upstream's response.
        Ok(())
    }

    /// Writes the error response that the client gets if no upstream has answered.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut ()) -> FailToProxy {
        let error_code = if let HTTPStatus(status) = error.etype() { *status } else { 502 };
        let response = gen_error_response(error_code);
        // TODO: add the fields to the proxy's own response. (`insert_header` returns a Result, but this method
        // cannot use `?`. With `let _ =`, it says that it ignores the error.)
        // If this fails, the client has left, and cannot be told about the error.
        let _ = session.write_error_response(response, Bytes::new()).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }
}
