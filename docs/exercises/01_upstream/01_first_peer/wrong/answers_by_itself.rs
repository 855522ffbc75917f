//! Wrong: answers 200 by itself, so the client takes an empty page for the response of the upstream.
//! Caught: "x-origin, which says which upstream has answered"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

/// Proxy that forwards every request to one upstream.
pub struct FirstPeer {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for FirstPeer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Error::e_explain(HTTPStatus(200), self.upstream.to_string())
    }
}
