//! # Round robin
//!
//! A `LoadBalancer` holds upstreams and selects one of them for each request. Its type parameter decides how
//! it selects. It returns `None` if it has no upstream to offer. This is an ordinary result: `unwrap` would
//! turn an outage into a panic.
//!
//! **Your task**: let the upstreams take turns, and answer 503 if there is none.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

/// Proxy that forwards each request to the next of its upstreams.
pub struct Balancer {
    /// Upstreams that take turns.
    pub upstreams: LoadBalancer<RoundRobin>,
}

impl Balancer {
    /// Returns a balancer over `upstreams`.
    ///
    /// # Errors
    /// Returns an error if an address cannot be resolved. A numeric address, as here, always can be resolved.
    pub fn new(upstreams: &[SocketAddr]) -> std::io::Result<Balancer> {
        Ok(Balancer { upstreams: LoadBalancer::try_from_iter(upstreams)? })
    }
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        // TODO: select an upstream and return a peer for it, with `crate::peer::peer(&upstream)`, which sets the
        // timeouts. If there is no upstream, return an error with status 503.
        Error::e_explain(HTTPStatus(501), "no upstream is selected yet")
    }
}
