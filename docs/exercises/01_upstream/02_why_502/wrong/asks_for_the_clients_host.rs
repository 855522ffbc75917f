//! Wrong: takes the name from the Host of the client, so the client chooses which server is believed.
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

    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let host = session.req_header().headers.get("Host");
        let name = host.and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
        let mut peer = HttpPeer::new(self.upstream, true, name);
        peer.options.ca = Some(Arc::new(Box::new([self.authority.clone()])));
        Ok(Box::new(peer))
    }
}
