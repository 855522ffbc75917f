//! Weighted: shares as the weights say, mixed as evenly as they can be.

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
        let mut upstreams = self.upstreams.lock();
        let mut winner = 0;
        let mut sum = 0;
        for i in 0..upstreams.len() {
            let weight = upstreams[i].weight;
            upstreams[i].current += weight;
            sum += weight;
            if upstreams[i].current > upstreams[winner].current {
                winner = i;
            }
        }
        upstreams[winner].current -= sum;
        upstreams[winner].address
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
