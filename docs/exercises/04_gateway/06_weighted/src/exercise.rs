//! # Weighted
//!
//! A new machine takes five requests for every one of the old ones. Five in a row and then one would be right on
//! average, and a jolt for everybody; the shares should be mixed as evenly as they can. nginx does it so: every
//! upstream has a *current value*, at first 0. For each request, all values grow by their weights, the largest
//! wins (the first of equals), and the winner's value shrinks by the sum of all weights.
//!
//! **Your task**: write `pick`.

use std::net::SocketAddr;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::prelude::*;

/// Forwards each request to one of its upstreams, as often as their weights say.
pub struct Weighted {
    upstreams: Mutex<Vec<Upstream>>,
}

struct Upstream {
    address: SocketAddr,
    weight: i64,
    current: i64,
}

impl Weighted {
    /// A balancer over upstreams and their weights, of which there is at least one.
    pub fn new(upstreams: &[(SocketAddr, i64)]) -> Weighted {
        let upstreams = upstreams.iter();
        let upstreams =
            upstreams.map(|&(address, weight)| Upstream { address, weight, current: 0 }).collect();
        Weighted { upstreams: Mutex::new(upstreams) }
    }

    /// Whose turn it is.
    pub fn pick(&self) -> SocketAddr {
        let upstreams = self.upstreams.lock();
        // TODO: so far the first one takes it all, whatever its weight and its value are.
        let _ = (upstreams[0].weight, upstreams[0].current);
        upstreams[0].address
    }
}

#[async_trait]
impl ProxyHttp for Weighted {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.pick(), false, String::new())))
    }
}
