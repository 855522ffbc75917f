//! # Forwarded
//!
//! The upstream sees the proxy's address where the client's should be. So proxies tell it in a header field,
//! `X-Forwarded-For`, and each one adds the address that it was called from. But any client can send such a
//! field too: what stands in it is a claim, and only the address of the connection is a fact.
//!
//! **Your task**: write `forwarded_for`, and use it. If the peer is one of the `trusted` proxies, what it
//! claims is kept and the peer's own address added at the end; of anybody else only the address counts.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::prelude::*;

/// Forwards every request to one upstream, and tells it who asks.
pub struct Forwarded {
    /// Where to.
    pub upstream: SocketAddr,
    /// The proxies in front of this one, whose word is believed.
    pub trusted: Vec<IpAddr>,
}

impl Forwarded {
    /// The X-Forwarded-For that goes up, where `peer` asks and sent the values `claims`.
    pub fn forwarded_for(&self, peer: IpAddr, claims: &[&str]) -> String {
        // TODO: `peer` alone, or what a trusted peer claims with `peer` at the end, separated by ", ".
        let _ = (peer, claims);
        "not written yet".to_owned()
    }
}

#[async_trait]
impl ProxyHttp for Forwarded {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        _request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        // TODO: who is the peer, what does it claim, and what goes up? Where no address is known, nothing does.
        Ok(())
    }
}
