//! Why 502? Because the upstream speaks TLS, proves a name, and has a certificate of a private authority.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::tls::x509::X509;

/// Forwards every request to one upstream that speaks TLS.
pub struct WhyBadGateway {
    /// Where to.
    pub upstream: SocketAddr,
    /// The host name that the upstream proves to be.
    pub name: String,
    /// The certificate of the authority that vouches for it.
    pub authority: X509,
}

#[async_trait]
impl ProxyHttp for WhyBadGateway {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, true, self.name.clone());
        peer.options.ca = Some(Arc::new(Box::new([self.authority.clone()])));
        Ok(Box::new(peer))
    }
}
