//! Wrong: makes a new balancer for each request, so each one begins with the first upstream.
//! Caught: "how many requests each upstream got"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

use crate::peer::peer;

/// Proxy that forwards each request to the next of its upstreams.
pub struct Balancer {
    /// Upstreams that take turns.
    pub upstreams: Vec<SocketAddr>,
}

impl Balancer {
    /// Returns a balancer over `upstreams`.
    ///
    /// # Errors
    /// Returns an error if an address cannot be resolved. A numeric address, as here, always can be resolved.
    pub fn new(upstreams: &[SocketAddr]) -> std::io::Result<Balancer> {
        Ok(Balancer { upstreams: upstreams.to_vec() })
    }
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let Ok(upstreams) = LoadBalancer::<RoundRobin>::try_from_iter(&self.upstreams) else {
            return Error::e_explain(HTTPStatus(503), "there is no upstream");
        };
        let Some(upstream) = upstreams.select(b"", 256) else {
            return Error::e_explain(HTTPStatus(503), "there is no upstream");
        };
        Ok(peer(&upstream))
    }
}
