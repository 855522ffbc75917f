//! # The first peer
//!
//! A proxy is a type that implements `ProxyHttp`. For each request, Pingora calls the methods of this trait
//! one after another: these are the *phases*. All of them have a default, except two: `new_ctx`, and
//! `upstream_peer`, which decides where the request goes.
//!
//! **Your task**: send every request to the upstream that this proxy knows, over plain HTTP.

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
        // TODO: return a peer for `self.upstream` in place of this error.
        Error::e_explain(HTTPStatus(501), "there is no peer yet")
    }
}
