//! Wrong: switches verification off, so any server that gets at the connection can answer in place of the upstream.
//! Caught: "GET / of an upstream whose certificate is from an untrusted authority"

use std::net::SocketAddr;

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
        let mut peer = HttpPeer::new(self.upstream, true, self.name.clone());
        peer.options.verify_cert = false;
        Ok(Box::new(peer))
    }
}
