//! Wrong: speaks TLS to an upstream that expects plain HTTP, so every request gets 502.
//! Caught: "GET / is answered by the upstream"

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
        Ok(Box::new(HttpPeer::new(self.upstream, true, String::new())))
    }
}
