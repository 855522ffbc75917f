//! Handshakes with clients: TLS 1.2 and 1.3, and what a handshake has found out.

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

/// With an ephemeral key exchange and authenticated encryption, and nothing else: Mozilla's "intermediate" without
/// finite-field Diffie-Hellman, which is slow and of no use to any client that is left.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
                       ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
                       ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// A hybrid that a quantum computer does not break comes first; the others are Mozilla's "intermediate".
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";

/// The versions of HTTP that are spoken over TLS, the preferred one first (RFC 7301 3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// What session tickets of the listener are good for.
const SESSIONS: &[u8] = b"gateway";

/// How long session tickets are made with the same key. Whoever steals it reads what was sent with those
/// tickets under TLS 1.2, so it does not last.
const TICKET_KEY_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Makes handshakes with clients.
pub struct Acceptor {
    current: ArcSwap<TicketEpoch>,
}

/// OpenSSL makes up a key for tickets with each context. A new context in time, and the keys are rotated;
/// tickets from before lead to a whole handshake.
struct TicketEpoch {
    acceptor: SslAcceptor,
    since: Instant,
}

/// What a handshake has found out about a client.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    /// The host that it asked for (SNI).
    pub server_name: Option<String>,
    /// Whose certificates it was asked for; `None`: for none.
    pub asked_for: Option<[u8; 32]>,
    /// The certificate that it has shown.
    pub client: Option<ClientIdentity>,
}

/// What holds for every handshake, whatever host it is for.
pub(super) fn settings() -> std::result::Result<SslAcceptorBuilder, ErrorStack> {
    let mut settings = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    settings.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    settings.set_cipher_list(CIPHERS)?;
    settings.set_groups_list(GROUPS)?;
    // In our order of ciphers; but a client that puts ChaCha20 first has no hardware for AES, and gets it.
    settings.set_options(
        SslOptions::NO_RENEGOTIATION | SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::PRIORITIZE_CHACHA,
    );
    // Sessions are in tickets, which clients keep.
    settings.set_session_cache_mode(SslSessionCacheMode::OFF);
    // A session keeps the name that its client has asked for only where somebody takes note of it.
    settings.set_servername_callback(|_, _| Ok(()));
    settings.set_alpn_select_callback(|_, offered| {
        // Without a version in common there can be no request (RFC 7301 3.2).
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
    /// One with new keys for session tickets.
    ///
    /// # Errors
    /// Where OpenSSL does not know what it must, which is a defect of the build.
    pub fn new() -> std::result::Result<Self, ErrorStack> {
        Ok(Acceptor { current: ArcSwap::from_pointee(TicketEpoch::new()?) })
    }

    /// Makes a handshake, in which the client is shown what `certificates` have for it. Where some host wants to see
    /// a certificate of the client's, `asked_for` is the host that it asks for, so that the handshake is made for that
    /// one from its beginning. The result travels in the stream's digest, as a [`Handshake`].
    ///
    /// # Errors
    /// Where the two do not agree, or there is nothing to show.
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
                // Two that come at once make two, and the later one stays.
                self.current.store(next.clone());
                next
            }
            Err(_) => current,
        }
    }
}

/// One handshake's view of the certificates.
struct CertSelector<'c> {
    certificates: Arc<Certificates>,
    /// Whose certificates the client is asked for.
    asks: Option<&'c ClientAuthority>,
}

#[async_trait]
impl TlsAccept for CertSelector<'_> {
    async fn certificate_callback(&self, ssl: &mut TlsRef) {
        let Some(host) = self.certificates.find(ssl.servername(NameType::HOST_NAME)) else { return };
        if let Err(error) = host.present(ssl) {
            // The handshake fails, as it does where there is no certificate.
            debug!(domain = host.domain, %error, "cannot show a certificate");
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
    /// That of the connection with this digest; `None` where it is without TLS.
    pub fn of(digest: &pingora::protocols::Digest) -> Option<&Handshake> {
        digest.ssl_digest.as_ref()?.extension.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_known_to_openssl() {
        assert!(Acceptor::new().is_ok());
    }

    #[test]
    fn ticket_keys_change_in_time() {
        let acceptor = Acceptor::new().unwrap();
        let first = acceptor.current();
        assert!(Arc::ptr_eq(&first, &acceptor.current()));
        let Some(past) = Instant::now().checked_sub(TICKET_KEY_LIFETIME) else { return };
        acceptor.current.store(Arc::new(TicketEpoch { acceptor: first.acceptor.clone(), since: past }));
        assert!(acceptor.current().since > past);
    }
}
