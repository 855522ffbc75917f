//! # Why 502?
//!
//! This proxy answers every request with 502 Bad Gateway. Its upstream is alive, but it speaks TLS, and the
//! proxy sends it plain HTTP. This is the most frequent cause of a 502. The upstream has a certificate for
//! the name `self.name`. No public authority has issued this certificate, but `self.authority` has.
//!
//! **Your task**: speak TLS, ask for the right name (SNI), and trust this authority. If an upstream cannot
//! prove its name, the answer must still be 502: switching verification off is not a solution.

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
        // TODO: use TLS, the name, and the authority. (The authority is `peer.options.ca`, a list in
        // an `Arc<Box<[X509]>>`.)
        let peer = HttpPeer::new(self.upstream, false, String::new());
        Ok(Box::new(peer))
    }
}
