//! Wrong: adds all fields but the last, so browsers guess the type of a file.
//! Caught: "X-Content-Type-Options on"

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

fn secure(response: &mut ResponseHeader) -> Result<()> {
    HEADERS.into_iter().take(2).try_for_each(|(name, value)| response.insert_header(name, value))
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
        response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        secure(response)
    }

    /// Writes the error response that the client gets if no upstream has answered.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut ()) -> FailToProxy {
        let error_code = if let HTTPStatus(status) = error.etype() { *status } else { 502 };
        let mut response = gen_error_response(error_code);
        // `insert_header` fails only if a name or value is not valid in a header field. All of `HEADERS` are
        // valid.
        let _ = secure(&mut response);
        // If this fails, the client has left, and cannot be told about the error.
        let _ = session.write_error_response(response, Bytes::new()).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }
}
