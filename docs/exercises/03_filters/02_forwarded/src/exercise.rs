//! # Forwarded
//!
//! The upstream sees the address of the proxy, not the address of the client. So proxies tell it the client's
//! address in a header field, `X-Forwarded-For`. Each proxy adds the address that the request came from. But
//! any client can send such a field too. The content of the field is a claim, and only the address of the
//! connection is a fact.
//!
//! **Your task**: write `forwarded_for`, and use it. The peer is the other end of the connection: a client,
//! or another proxy. If it is one of the `trusted` proxies, keep its claims, and add its own address at the
//! end. For any other peer, only its address counts.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::prelude::*;

use crate::peer::peer;

/// Proxy that forwards every request to one upstream, and tells it the client's address.
pub struct Forwarded {
    /// Address of the upstream.
    pub upstream: SocketAddr,
    /// Proxies in front of this one, whose claims are believed.
    pub trusted: Vec<IpAddr>,
}

impl Forwarded {
    /// Returns the X-Forwarded-For for the upstream. `peer` sent the request, with the values `claims`.
    pub fn forwarded_for(&self, peer: IpAddr, claims: &[&str]) -> String {
        // TODO: return `peer` alone. If `peer` is trusted, return its claims first and then `peer`, separated
        // by ", ".
        let _ = (peer, claims);
        "not written yet".to_owned()
    }
}

#[async_trait]
impl ProxyHttp for Forwarded {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        _request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        // TODO: insert the field, for the peer and the values that it has sent. If the peer has no address,
        // remove the field.
        Ok(())
    }
}
