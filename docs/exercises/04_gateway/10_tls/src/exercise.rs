//! # TLS
//!
//! A proxy that terminates HTTPS is the end of the encryption. It proves its name with a certificate, reads what
//! the client sent, and forwards it over a second connection. The upstream sees plain HTTP. You have to tell it
//! that the client used HTTPS. Otherwise it sends links that begin with `http:`. Most proxies listen for plain
//! HTTP, too. So look at the connection of the client (`session.digest()`), and not at what the client writes.
//!
//! The certificate and its key come from two files. If they do not belong together, Pingora starts all the
//! same, and then no client gets an answer. It is better not to start.
//!
//! **Your task**: in `listen`, add a TLS listener in place of the plain one, and return an error if the files are
//! wrong (`TlsSettings`, of `pingora::listeners::tls`). Then tell the upstream `X-Forwarded-Proto`: `https` for a
//! client that uses TLS, `http` for others.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::prelude::*;
use pingora::proxy::HttpProxy;
use pingora::services::listening::Service;

use crate::peer::peer;

/// Proxy that forwards every request to one upstream.
pub struct TlsProxy {
    /// Address of the upstream, which speaks plain HTTP.
    pub upstream: SocketAddr,
}

/// Lets `service` listen for HTTPS on `address`. `certificate` and `key` are the paths of two PEM files.
///
/// # Errors
/// Returns an error if the files are not a certificate and its key. The service then does not listen.
pub fn listen(
    service: &mut Service<HttpProxy<TlsProxy>>,
    address: &str,
    certificate: &str,
    key: &str,
) -> Result<()> {
    // TODO: use TLS. For now, anyone can read the traffic, and the certificate and its key are not used.
    let _ = (certificate, key);
    service.add_tcp(address);
    Ok(())
}

#[async_trait]
impl ProxyHttp for TlsProxy {
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
        // TODO: tell the upstream which protocol the client uses.
        Ok(())
    }
}
