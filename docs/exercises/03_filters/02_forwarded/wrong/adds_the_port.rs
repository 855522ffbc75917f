//! Wrong: sends the port with the address, so programs that expect an address cannot read it.
//! Caught: "X-Forwarded-For at the upstream"

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
        let peer_address = peer.to_string();
        if !self.trusted.contains(&peer) {
            return peer_address;
        }
        let mut addresses = claims.to_vec();
        addresses.push(&peer_address);
        addresses.join(", ")
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
        session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        let Some(peer) = session.client_addr().and_then(|address| address.as_inet()) else {
            request.remove_header("X-Forwarded-For");
            return Ok(());
        };
        let claims = session.req_header().headers.get_all("X-Forwarded-For");
        // A claim that is not text is no address, and is dropped.
        let claims: Vec<&str> = claims.iter().filter_map(|value| value.to_str().ok()).collect();
        request.insert_header(
            "X-Forwarded-For",
            self.forwarded_for(peer.ip().to_canonical(), &claims) + &format!(":{}", peer.port()),
        )
    }
}
