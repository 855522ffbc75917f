//! # Why 502?
//!
//! This proxy answers 502 Bad Gateway to every request. Its upstream is alive, but it speaks TLS, and this
//! proxy sends it plain HTTP: the commonest 502 of all. The upstream proves to be `self.name` with a
//! certificate that no public authority has issued, but `self.authority` has.
//!
//! **Your task**: speak TLS, ask for the right name (SNI), and trust that authority. An upstream that cannot
//! prove its name must go on being a 502: switching verification off is no solution.

use std::net::SocketAddr;

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
        // TODO: TLS, the name, and the authority. (The last one is a field of the peer's `options`.)
        let peer = HttpPeer::new(self.upstream, false, String::new());
        Ok(Box::new(peer))
    }
}
