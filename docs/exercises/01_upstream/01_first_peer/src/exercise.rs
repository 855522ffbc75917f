//! # The first peer
//!
//! A proxy is a type that implements `ProxyHttp`. Pingora calls its methods, the phases, one after another
//! for each request. All of them have a default but two: `new_ctx`, and `upstream_peer`, which says where the
//! request goes.
//!
//! **Your task**: send every request to the upstream that this proxy knows, over plain HTTP.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

/// Forwards every request to one upstream.
pub struct FirstPeer {
    /// Where to.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for FirstPeer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        // TODO: return a peer for `self.upstream` in place of this error.
        Error::e_explain(HTTPStatus(501), "there is no peer yet")
    }
}
