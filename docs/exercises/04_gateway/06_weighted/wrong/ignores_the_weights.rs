//! Wrong: The upstreams take turns: a small machine gets as many requests as a large one.
//! Caught: "fourteen turns with the weights 5, 1 and 1"

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
        let mut upstreams = self.upstreams.lock();
        let turn = upstreams[0].current as usize % upstreams.len();
        upstreams[0].current += upstreams[0].weight.signum();
        upstreams[turn].address
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
