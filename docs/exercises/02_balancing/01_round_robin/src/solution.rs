//! Round robin: requests take turns over the upstreams, and without any the answer is 503.

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
        let Some(upstream) = self.upstreams.select(b"", 256) else {
            return Error::e_explain(HTTPStatus(503), "there is no upstream");
        };
        Ok(Box::new(HttpPeer::new(&upstream, false, String::new())))
    }
}
