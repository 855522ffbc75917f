//! Health checks: they run in the background, so that no client meets a dead upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::prelude::*;

use crate::peer::peer;

/// Proxy that forwards each request to the next healthy upstream.
pub struct Balancer {
    /// Upstreams, shared with the background service, which keeps their health up to date.
    pub upstreams: Arc<LoadBalancer<RoundRobin>>,
}

/// Returns upstreams that are checked at the interval `every` while their background service runs.
///
/// # Errors
/// Returns an error if an address cannot be resolved. A numeric address, as here, always can be resolved.
pub fn checked(addresses: &[SocketAddr], every: Duration) -> std::io::Result<LoadBalancer<RoundRobin>> {
    let mut upstreams = LoadBalancer::try_from_iter(addresses)?;
    upstreams.set_health_check(TcpHealthCheck::new());
    upstreams.health_check_frequency = Some(every);
    upstreams.parallel_health_check = true;
    Ok(upstreams)
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let Some(upstream) = self.upstreams.select(b"", 256) else {
            return Error::e_explain(HTTPStatus(503), "no upstream is healthy");
        };
        Ok(peer(&upstream))
    }
}
