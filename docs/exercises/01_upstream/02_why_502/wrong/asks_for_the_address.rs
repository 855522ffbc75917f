//! Wrong: asks for the address in place of the name, which stands in no certificate, so every request gets 502.
//! Caught: "GET / of an upstream with TLS and a certificate for origin.test"

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::tls::x509::X509;

/// Proxy that forwards every request to one upstream, over TLS.
pub struct WhyBadGateway {
    /// Address of the upstream.
    pub upstream: SocketAddr,
    /// Host name in the upstream's certificate.
    pub name: String,
    /// Certificate of the authority that has issued the upstream's certificate.
    pub authority: X509,
}

#[async_trait]
impl ProxyHttp for WhyBadGateway {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, true, self.upstream.ip().to_string());
        peer.options.ca = Some(Arc::new(Box::new([self.authority.clone()])));
        Ok(Box::new(peer))
    }
}
