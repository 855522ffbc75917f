//! Wrong: `unwrap` panics if a file is missing, where the caller wants an error to report.
//! Caught: "listen() with a certificate in place of the key"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::proxy::HttpProxy;
use pingora::services::listening::Service;

use crate::peer::peer;

/// Proxy that forwards every request to one upstream.
pub struct TlsProxy {
    /// Address of the upstream, which speaks plain HTTP.
    pub upstream: SocketAddr,
}

#[allow(clippy::unwrap_used)]
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
    let settings = TlsSettings::intermediate(certificate, key).unwrap();
    settings.check_private_key().or_err(InternalError, "the key does not belong to the certificate")?;
    service.add_tls_with_settings(address, None, settings);
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
        session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        let uses_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        request.insert_header("X-Forwarded-Proto", if uses_tls { "https" } else { "http" })
    }
}
