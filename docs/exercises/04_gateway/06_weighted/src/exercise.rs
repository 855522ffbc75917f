//! # Weighted
//!
//! A new machine takes five requests for each request that an old one takes. If five requests in a row went
//! to the new machine, the average would be right, but every machine would get its load in bursts. So the
//! shares should be mixed as evenly as possible. nginx does it in this way: every upstream has a *current
//! value*, which is 0 at first. For each request, every value grows by the weight of its upstream. The
//! upstream with the largest value wins (the first one, if several are equal). Then the winner's value
//! shrinks by the sum of all weights.
//!
//! **Your task**: write `pick`.

use std::net::SocketAddr;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::prelude::*;

use crate::peer::peer;

/// Proxy that forwards each request to one of its upstreams, in proportion to their weights.
pub struct Weighted {
    upstreams: Mutex<Vec<Upstream>>,
}

struct Upstream {
    address: SocketAddr,
    weight: i64,
    current: i64,
}

impl Weighted {
    /// Returns a balancer over upstreams and their weights. An upstream with the weight 0 gets no requests. If
    /// that is so for all of them, there is nothing to balance, and the result is `None`.
    pub fn new(upstreams: &[(SocketAddr, u32)]) -> Option<Weighted> {
        let upstreams = upstreams.iter().filter(|(_, weight)| *weight > 0);
        let upstreams: Vec<_> = upstreams
            .map(|&(address, weight)| Upstream { address, weight: weight.into(), current: 0 })
            .collect();
        (!upstreams.is_empty()).then(|| Weighted { upstreams: Mutex::new(upstreams) })
    }

    /// Returns the address of the upstream whose turn it is. (`new` has made sure that there is one.)
    pub fn pick(&self) -> SocketAddr {
        let upstreams = self.upstreams.lock();
        // TODO: choose by weights and values. For now, the first upstream gets every request.
        let _ = (upstreams[0].weight, upstreams[0].current);
        upstreams[0].address
    }
}

#[async_trait]
impl ProxyHttp for Weighted {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.pick()))
    }
}
