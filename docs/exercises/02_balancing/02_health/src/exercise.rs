//! # Health checks
//!
//! This balancer sends every second request to an upstream that may be dead. A `LoadBalancer` is also a
//! background service: while the proxy serves, it checks its upstreams, and stops selecting those that fail.
//! But you have to tell it how to check, and how often.
//!
//! **Your task**: check by TCP connection, check all upstreams at once, and repeat the check at the interval
//! `every`. (The test runs the service. In a program, the service is
//! `background_service("health checks", upstreams)`, and you add it to the server.)

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
    let upstreams = LoadBalancer::try_from_iter(addresses)?;
    // TODO: make `upstreams` mutable. Tell it how to check, how often, and to check all upstreams at once.
    let _ = every; // (Then this line can go.)
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
