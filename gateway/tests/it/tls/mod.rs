//! HTTPS: the choice of the certificate, its replacement, and requirements for clients.

mod certificates;
mod clients;
mod https;
mod replacing;
mod self_signed;

use std::fmt::Write as _;
use std::net::SocketAddr;

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnectorBuilder, SslRef};
use testkit::tls::{Authority, Identity, handshake};
use testkit::{Origin, exchange_over};

use crate::support::Gateway;

/// A virtual host, and its keys other than domain and tag.
pub(crate) struct Host<'a> {
    pub(crate) domain: &'a str,
    pub(crate) keys: String,
    /// Kept here because the files exist only as long as the identity.
    _identity: Option<&'a Identity>,
}

/// Returns a virtual host that presents `identity`.
pub(crate) fn shows<'a>(domain: &'a str, identity: &'a Identity) -> Host<'a> {
    let (certificate, key) = (identity.certificate_file(), identity.key_file());
    let keys = format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", certificate.display(), key.display());
    Host { domain, keys, _identity: Some(identity) }
}

impl<'a> Host<'a> {
    /// Returns a virtual host with these keys.
    pub(crate) fn new(domain: &'a str, keys: impl Into<String>) -> Self {
        Host { domain, keys: keys.into(), _identity: None }
    }

    /// Adds keys.
    pub(crate) fn with(mut self, keys: &str) -> Self {
        let _ = writeln!(self.keys, "{keys}");
        self
    }
}

/// Returns a configuration with a listener of each kind.
pub(crate) fn config(origin: SocketAddr, proxy: &str, hosts: &[Host<'_>]) -> String {
    let mut config = format!(
        "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nlisten_addr = \"127.0.0.1:0\"\n\
         management_api_addr = \"127.0.0.1:0\"\n{proxy}\n[metrics]\nlisten_addr = \"127.0.0.1:0\"\n\
         [health_check]\nenabled = false\n\
         [[backends]]\nid = \"one\"\naddress = \"{origin}\"\ntags = [\"all\"]\n"
    );
    for Host { domain, keys, .. } in hosts {
        let _ = write!(
            config,
            "[[virtual_hosts]]\ndomain = \"{domain}\"\nenabled_backends_tag = \"all\"\n{keys}\n"
        );
    }
    config
}

/// Starts a gateway over `origin` with these virtual hosts.
pub(crate) async fn start(origin: &Origin, hosts: &[Host<'_>]) -> Gateway {
    Gateway::start_with_config(&config(origin.address(), "", hosts)).await
}

/// Client options that verify no certificate, send none, and leave the protocols at their defaults.
fn anyhow(_: &mut SslConnectorBuilder) -> Result<(), ErrorStack> {
    Ok(())
}

/// Returns the subject of the certificate that the server presents for `name`.
async fn shown(address: SocketAddr, name: Option<&str>) -> Result<String, String> {
    handshake(address, name, anyhow).await.map(|stream| subject(stream.ssl()))
}

fn subject(ssl: &SslRef) -> String {
    let certificate = ssl.peer_certificate().unwrap();
    let entry = certificate.subject_name().entries().next().unwrap();
    entry.data().to_string().unwrap()
}

/// Sends a GET of `/anything` on a connection for `name`, with the host `host`. Returns the whole response.
async fn get(address: SocketAddr, name: &str, host: &str, fields: &str) -> String {
    get_with(address, name, host, fields, anyhow).await.unwrap()
}

async fn get_with(
    address: SocketAddr,
    name: &str,
    host: &str,
    fields: &str,
    setup: impl FnOnce(&mut SslConnectorBuilder) -> Result<(), ErrorStack>,
) -> Result<String, String> {
    let stream = handshake(address, Some(name), setup).await?;
    let request = format!("GET /anything HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
    Ok(exchange_over(stream, request.as_bytes()).await)
}

/// Returns the status of a response.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// Starts a gateway with one virtual host that has a certificate.
async fn simple() -> (Origin, Gateway) {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let identity = authority.issue("web.test");
    let gateway = start(&origin, &[shows("web.test", &identity)]).await;
    (origin, gateway)
}
