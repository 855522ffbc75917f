//! # Round robin
//!
//! A `LoadBalancer` holds upstreams and selects one for each request; how, its type parameter says. It returns
//! `None` when it has nobody to offer, and that is an everyday answer: `unwrap` would turn an outage into a
//! panic.
//!
//! **Your task**: let requests take turns over the upstreams, and answer 503 when there is none.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

/// Forwards each request to the next of its upstreams.
pub struct Balancer {
    /// Who takes turns.
    pub upstreams: LoadBalancer<RoundRobin>,
}

impl Balancer {
    /// A balancer over `upstreams`.
    ///
    /// # Errors
    /// Where an address cannot be resolved, which one with numbers always can.
    pub fn new(upstreams: &[SocketAddr]) -> std::io::Result<Balancer> {
        Ok(Balancer { upstreams: LoadBalancer::try_from_iter(upstreams)? })
    }
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        // TODO: select an upstream and return a peer for it; where there is none, an error with status 503.
        Error::e_explain(HTTPStatus(501), "nothing is selected yet")
    }
}
