//! Certificates of TLS backends. This module does two things that Pingora does not: it compares a certificate with an
//! IP address (RFC 9110 4.3.5), and it finds out why a certificate is refused.

use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openssl::ssl::{Ssl, SslRef, SslVerifyMode};
use openssl::x509::X509Ref;
use pingora::prelude::*;
use pingora::protocols::Digest;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::Peer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_openssl::SslStream;
use tracing::warn;

use super::BackendState;
use crate::util::{clock, http_client};

/// Minimum time between two log messages that say why one backend's certificate is refused.
const EXPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Timeout of the second handshake, which is made only to find out why a certificate is refused.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Result of the comparison with an IP address: true if the certificate names the required address.
struct IsForAddress(bool);

/// Function that Pingora calls when a handshake is complete. Pingora keeps the returned value with the connection.
pub(super) type Hook = Arc<dyn Fn(&SslRef) -> Option<Arc<dyn Any + Send + Sync>> + Send + Sync>;

/// Returns the hook that compares a certificate with `address`.
pub(super) fn address_hook(address: IpAddr) -> Hook {
    Arc::new(move |ssl| {
        let is_for = ssl.peer_certificate().is_some_and(|certificate| names_address(&certificate, address));
        Some(Arc::new(IsForAddress(is_for)) as Arc<dyn Any + Send + Sync>)
    })
}

fn names_address(certificate: &X509Ref, address: IpAddr) -> bool {
    let names = certificate.subject_alt_names();
    let addresses = names.iter().flatten().filter_map(|name| name.ipaddress());
    let mut same = addresses.filter(|named| match address {
        IpAddr::V4(address) => *named == address.octets(),
        IpAddr::V6(address) => *named == address.octets(),
    });
    same.next().is_some()
}

/// Checks that the certificate of a connection names the IP address in `peer.sni`. A host name is not checked here.
/// The caller must not have sent a request on the connection yet.
///
/// # Errors
/// Returns `InvalidCert` if the certificate does not name the address.
pub fn check_address(digest: Option<&Digest>, peer: &HttpPeer) -> Result<()> {
    let tls = digest.and_then(|digest| digest.ssl_digest.as_ref());
    match tls.and_then(|tls| tls.extension.get::<IsForAddress>()) {
        Some(IsForAddress(false)) => {
            let detail = format!("the certificate does not name the IP address {} (upstream.sni)", peer.sni);
            Err(Error::explain(InvalidCert, detail).into_up())
        }
        _ => Ok(()),
    }
}

/// Logs why the certificate of `backend` is refused, at most once a minute.
pub fn explain_in_log(backend: &Arc<BackendState>, peer: &HttpPeer) {
    if !backend.refused_certificates().is_due(clock::now(), EXPLAIN_EVERY) {
        return;
    }
    let (backend, peer) = (backend.clone(), peer.clone());
    tokio::spawn(async move {
        let (name, address) = (&backend.name, &backend.endpoint);
        match why_refused(&peer).await {
            Some(reason) => warn!(backend = name, %address, "the backend's certificate is refused: {reason}"),
            None => {
                warn!(
                    backend = name,
                    %address,
                    "the backend's certificate was refused before, and is accepted now"
                )
            }
        }
    });
}

/// Makes another handshake to find out why the certificate of `peer` is refused; `None` if this one succeeds or cannot
/// begin.
pub(super) async fn why_refused(peer: &HttpPeer) -> Option<String> {
    let handshake = async {
        match peer.address() {
            SocketAddr::Inet(address) => handshake(peer, TcpStream::connect(address).await.ok()?).await,
            SocketAddr::Unix(address) => {
                handshake(peer, UnixStream::connect(address.as_pathname()?).await.ok()?).await
            }
        }
    };
    match timeout(EXPLAIN_TIMEOUT, handshake).await {
        Ok(reason) => reason,
        Err(_) => Some("a second handshake, to find out why, took too long".to_owned()),
    }
}

async fn handshake(peer: &HttpPeer, socket: impl AsyncRead + AsyncWrite + Unpin) -> Option<String> {
    let reason = Arc::new(OnceLock::new());
    let found = reason.clone();
    let ssl = client(peer, move |detail| drop(found.set(detail))).ok()?;
    let mut stream = SslStream::new(ssl, socket).ok()?;
    let outcome = std::pin::Pin::new(&mut stream).connect().await;
    drop(stream);
    match (reason.get(), outcome) {
        (Some(reason), _) => Some(reason.clone()),
        (None, Err(error)) => Some(error.to_string()),
        (None, Ok(())) => None,
    }
}

/// Returns a TLS client that verifies certificates like Pingora, and calls `refused` with the reason for a refusal.
fn client(
    peer: &HttpPeer,
    refused: impl Fn(String) + Send + Sync + 'static,
) -> std::result::Result<Ssl, openssl::error::ErrorStack> {
    let roots = peer.options.ca.iter().flat_map(|ca| ca.iter()).map(|root| root.to_der());
    let mut tls = http_client::tls(&roots.collect::<std::result::Result<Vec<_>, _>>()?)?;
    tls.set_verify_callback(SslVerifyMode::PEER, move |is_fine, context| {
        if !is_fine {
            let mut reason = context.error().error_string().to_owned();
            if let Some(certificate) = context.current_cert() {
                let (from, to) = (certificate.not_before(), certificate.not_after());
                reason.push_str(&format!(" (valid from {from} to {to}; it names {})", names(certificate)));
            }
            refused(reason);
        }
        is_fine
    });
    if let Some(pair) = &peer.client_cert_key {
        tls.set_certificate(pair.leaf())?;
        tls.set_private_key(pair.key())?;
    }
    let connect = tls.build().configure()?;
    // An IP address is compared with the addresses in the certificate, and is not sent as a name (SNI).
    connect.into_ssl(&peer.sni)
}

/// Returns the first names and addresses in a certificate, as a text for the log.
fn names(certificate: &X509Ref) -> String {
    const SHOWN: usize = 5;
    let names = certificate.subject_alt_names();
    let names = names.iter().flatten().filter_map(|name| {
        let address = || match name.ipaddress()? {
            bytes if bytes.len() == 4 => {
                <[u8; 4]>::try_from(bytes).ok().map(|it| IpAddr::from(it).to_string())
            }
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|it| IpAddr::from(it).to_string()),
        };
        name.dnsname().map(str::to_owned).or_else(address)
    });
    let names: Vec<String> = names.take(SHOWN).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
