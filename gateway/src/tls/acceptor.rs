//! Handshakes with clients over TLS 1.2 and 1.3, and their results.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use openssl::error::ErrorStack;
use openssl::ssl::{
    AlpnError, NameType, SslAcceptor, SslAcceptorBuilder, SslMethod, SslOptions, SslSessionCacheMode,
    SslVersion, select_next_proto,
};
use pingora::Result;
use pingora::listeners::TlsAccept;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::tls::server::handshake_with_callback;
use pingora::protocols::tls::{SslStream, TlsRef};
use tracing::debug;

use super::{Certificates, ClientAuthority, ClientIdentity};

/// Cipher suites for TLS 1.2. All have an ephemeral key exchange and authenticated encryption. The list is
/// Mozilla's "intermediate" without finite-field Diffie-Hellman, which is slow and which no client in use
/// needs.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
                       ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
                       ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// Key exchange groups. The first is a hybrid that a quantum computer does not break; the others are
/// Mozilla's "intermediate".
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";

/// Versions of HTTP that are offered over TLS, the preferred one first (RFC 7301 3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// Session id context. The gateway accepts only session tickets with this id.
const SESSIONS: &[u8] = b"gateway";

/// Lifetime of a key for session tickets. An attacker who steals the key can read TLS 1.2 traffic of sessions
/// with those tickets, so the lifetime is short.
const TICKET_KEY_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Acceptor of TLS handshakes with clients.
pub struct Acceptor {
    current: ArcSwap<TicketEpoch>,
}

/// Acceptor whose session tickets share one key, and the time when the acceptor was made. OpenSSL makes a new ticket
/// key for each context, so a new acceptor rotates the key. A client with an older ticket makes a full handshake.
struct TicketEpoch {
    acceptor: SslAcceptor,
    since: Instant,
}

/// Result of a handshake with a client.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    /// Host that the client asked for (SNI); `None` if it named no host.
    pub server_name: Option<String>,
    /// Id ([`ClientAuthority::id`]) of the authorities for which the client was asked to present a certificate;
    /// `None` if the client was not asked.
    pub asked_for: Option<[u8; 32]>,
    /// Certificate that the client has presented; `None` if the client has presented none or was not asked.
    pub client: Option<ClientIdentity>,
}

/// Returns the settings that all handshakes share.
pub(super) fn settings() -> std::result::Result<SslAcceptorBuilder, ErrorStack> {
    let mut settings = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    settings.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    settings.set_cipher_list(CIPHERS)?;
    settings.set_groups_list(GROUPS)?;
    // The server's order of ciphers is used. A client that puts ChaCha20 first has no hardware for AES, and
    // gets ChaCha20.
    settings.set_options(
        SslOptions::NO_RENEGOTIATION | SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::PRIORITIZE_CHACHA,
    );
    // Sessions are stored in tickets, which the clients keep.
    settings.set_session_cache_mode(SslSessionCacheMode::OFF);
    // OpenSSL stores the server name in a session only if a callback is set.
    settings.set_servername_callback(|_, _| Ok(()));
    settings.set_alpn_select_callback(|_, offered| {
        // Without a common version of HTTP no request is possible (RFC 7301 3.2).
        select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    Ok(settings)
}

impl TicketEpoch {
    fn new() -> std::result::Result<Self, ErrorStack> {
        let mut settings = settings()?;
        settings.set_session_id_context(SESSIONS)?;
        Ok(TicketEpoch { acceptor: settings.build(), since: Instant::now() })
    }
}

impl Acceptor {
    /// Creates an acceptor with new keys for session tickets.
    ///
    /// # Errors
    /// Returns an error if OpenSSL does not know a required cipher or group, which is a defect of the build.
    pub fn new() -> std::result::Result<Self, ErrorStack> {
        Ok(Acceptor { current: ArcSwap::from_pointee(TicketEpoch::new()?) })
    }

    /// Makes a handshake that presents the certificate for the client's host from `certificates`. A client
    /// certificate is requested only if `asked_for` is the client's host. So the caller must pass the host if a
    /// virtual host asks for client certificates. The result is stored in the stream's digest, as a [`Handshake`].
    ///
    /// # Errors
    /// Returns an error if the client and the gateway agree on no parameters, or there is no certificate to
    /// present.
    pub async fn accept(
        &self,
        stream: TcpStream,
        certificates: Arc<Certificates>,
        asked_for: Option<&str>,
    ) -> Result<SslStream<TcpStream>> {
        let host = asked_for.and_then(|name| certificates.find(Some(name))).cloned();
        let asks = host.as_ref().and_then(|host| host.client.as_ref());
        let current = self.current();
        let acceptor = asks.map_or(&current.acceptor, |client| &client.acceptor);
        handshake_with_callback(acceptor, stream, &CertSelector { certificates, asks }).await
    }

    fn current(&self) -> Arc<TicketEpoch> {
        let current = self.current.load_full();
        if current.since.elapsed() < TICKET_KEY_LIFETIME {
            return current;
        }
        match TicketEpoch::new() {
            Ok(next) => {
                let next = Arc::new(next);
                // Two connections may each make a context at the same time. The context that is stored last stays.
                self.current.store(next.clone());
                next
            }
            Err(_) => current,
        }
    }
}

/// Callbacks that choose the certificates for one handshake.
struct CertSelector<'c> {
    certificates: Arc<Certificates>,
    /// Authorities of the client certificate that the handshake asks for; `None` if the handshake asks for none.
    asks: Option<&'c ClientAuthority>,
}

#[async_trait]
impl TlsAccept for CertSelector<'_> {
    async fn certificate_callback(&self, ssl: &mut TlsRef) {
        let Some(host) = self.certificates.find(ssl.servername(NameType::HOST_NAME)) else { return };
        if let Err(error) = host.present(ssl) {
            // The handshake then fails, as it does if there is no certificate.
            debug!(domain = host.domain, %error, "cannot present a certificate");
        }
    }

    async fn handshake_complete_callback(&self, ssl: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::new(Handshake {
            server_name: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
            asked_for: self.asks.map(|client| client.id),
            client: self.asks.and_then(|_| ClientAuthority::shown(ssl)),
        }))
    }
}

impl Handshake {
    /// Returns the handshake of the connection with this digest; `None` if the connection is without TLS.
    pub fn of(digest: &pingora::protocols::Digest) -> Option<&Handshake> {
        digest.ssl_digest.as_ref()?.extension.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_accepts_the_acceptor_settings() {
        assert!(Acceptor::new().is_ok());
    }

    #[test]
    fn ticket_key_past_its_lifetime_is_replaced() {
        let acceptor = Acceptor::new().unwrap();
        let first = acceptor.current();
        assert!(Arc::ptr_eq(&first, &acceptor.current()));
        let Some(past) = Instant::now().checked_sub(TICKET_KEY_LIFETIME) else { return };
        acceptor.current.store(Arc::new(TicketEpoch { acceptor: first.acceptor.clone(), since: past }));
        assert!(acceptor.current().since > past);
    }
}
