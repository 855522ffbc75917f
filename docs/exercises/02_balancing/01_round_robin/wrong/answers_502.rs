//! Wrong: answers 502 if there is no upstream, as if an upstream had sent a bad response.
//! Caught: "GET / when there is no upstream"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

use crate::peer::peer;

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
        let Some(upstream) = self.upstreams.select(b"", 256) else {
            return Error::e_explain(HTTPStatus(502), "there is no upstream");
        };
        Ok(peer(&upstream))
    }
}
