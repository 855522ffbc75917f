//! Settings of the connections to a backend: timeouts, keep-alive, TLS, and the version of HTTP. The settings are
//! compiled from the `[upstream]` table, and turned into the peer that Pingora connects to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHasher;
use openssl::pkey::PKey;
use openssl::x509::X509;
use pingora::prelude::*;
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::CertKey;

use super::certificate::{Hook, address_hook};
use super::connection::Offer;
use super::{BackendState, Endpoint};
use crate::config::{Upstream, UpstreamProtocol};

/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_H2_STREAMS: u16 = 100;

/// Number of TCP keep-alive probes without a response after which the system closes a connection.
const KEEPALIVE_PROBES: u32 = 3;

/// Settings of the connections to a backend: the compiled `[upstream]` table.
pub struct PeerSettings {
    connect_timeout: Duration,
    read_timeout: Duration,
    write_timeout: Duration,
    idle_timeout: Duration,
    stream_idle_timeout: Duration,
    tcp_keepalive: Option<TcpKeepalive>,
    h2_ping_interval: Option<Duration>,
    h2_window: u32,
    protocol: UpstreamProtocol,
    tls: Option<Tls>,
    max_inflight: u32,
    identity: u64,
}

struct Tls {
    sni: String,
    ca: Option<Arc<CaType>>,
    certificate: Option<Arc<CertKey>>,
    verify: bool,
    /// Hook that compares the certificate with an IP address. `Some` if `sni` is an IP address and `verify` is true.
    address: Option<Hook>,
}

/// Error of a file that the `[upstream]` table names.
#[derive(Debug)]
pub struct BadFile {
    /// Key in the table whose value is the path of the file.
    pub key: &'static str,
    /// Description of the error.
    pub detail: String,
}

/// Properties of a connection that depend on the request.
#[derive(Clone, Copy, Debug)]
pub struct PeerOptions {
    /// Time left until the response must begin.
    pub left: Duration,
    /// True if the caller itself enforces `left`. If false, each single read is limited to `left`.
    pub timed: bool,
    /// Connections that the request may use.
    pub pooling: Pooling,
    /// True for a stream, which may be silent for long: its idle timeout replaces the read and write timeouts.
    pub is_stream: bool,
    /// True if HTTP/1.1 responses are inspected even with the protocol `auto`. With `http1` they always are.
    pub is_inspected: bool,
}

/// Connections to a backend that a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Connections that all requests share.
    Shared,
    /// A new connection, which is not kept for later requests. Used, for example, after an idle connection was closed
    /// or silent, or for the trial of an open circuit.
    Fresh,
    /// Connections for one client connection, which has this number: they carry its login (NTLM, Negotiate).
    Pinned(u64),
}

impl Pooling {
    /// Returns a key for the pool of idle connections. Connections that a request must not share have another key.
    fn key(self) -> (u8, u64) {
        match self {
            Pooling::Shared => (0, 0),
            // Unique, because even a connection that is closed at once is in Pingora's pool for a moment.
            Pooling::Fresh => (1, next_group()),
            Pooling::Pinned(client) => (2, client),
        }
    }
}

impl PeerSettings {
    /// Compiles the table, and reads the files that it names.
    ///
    /// # Errors
    /// Returns an error for the first file that cannot be read, or has the wrong content.
    pub fn new(config: &Upstream) -> std::result::Result<Self, BadFile> {
        let mut identity = DefaultHasher::new();
        (config.protocol, config.tls, config.verify, &config.sni, config.h2_window_bytes).hash(&mut identity);
        let tls = config.tls.then(|| Tls::new(config, &mut identity)).transpose()?;
        Ok(PeerSettings {
            connect_timeout: config.connect_timeout_ms.duration(),
            read_timeout: config.read_timeout_secs.duration(),
            write_timeout: config.write_timeout_secs.duration(),
            idle_timeout: config.idle_timeout_secs.duration(),
            stream_idle_timeout: config.stream_idle_timeout_secs.duration(),
            tcp_keepalive: tcp_keepalive(config.tcp_keepalive_secs),
            h2_ping_interval: seconds(config.h2_ping_interval_secs),
            h2_window: config.h2_window_bytes.get(),
            protocol: config.protocol,
            tls,
            max_inflight: if config.max_inflight_per_backend == 0 {
                u32::MAX
            } else {
                config.max_inflight_per_backend
            },
            identity: identity.finish(),
        })
    }

    /// Returns true if the gateway speaks only HTTP/1 with the backend. False with the protocol `auto`.
    pub fn is_http1(&self) -> bool {
        self.protocol == UpstreamProtocol::Http1
    }

    /// Returns the maximum number of requests in flight on one backend.
    pub fn max_inflight(&self) -> u32 {
        self.max_inflight
    }

    /// Returns true if the gateway speaks only HTTP/2 with the backend. False with the protocol `auto`.
    pub fn is_http2(&self) -> bool {
        self.protocol == UpstreamProtocol::Http2
    }

    /// Returns the read timeout or the idle timeout of streams, whichever is longer.
    pub fn longest_silence(&self) -> Duration {
        self.read_timeout.max(self.stream_idle_timeout)
    }

    /// Returns the idle timeout of streams.
    pub fn stream_idle_timeout(&self) -> Duration {
        self.stream_idle_timeout
    }

    /// Returns true if `other` has the same protocol, TLS settings and HTTP/2 window. Timeouts are not compared.
    pub(super) fn connects_as(&self, other: &PeerSettings) -> bool {
        self.identity == other.identity
    }

    /// Returns the peer with which Pingora connects to `backend`. All timeouts are set, because Pingora has no default
    /// for them.
    ///
    /// # Errors
    /// Returns an error if the name of the backend has not been looked up, or if the path of a Unix socket is invalid.
    /// Validation has ruled out the latter.
    pub fn peer(&self, backend: &BackendState, occasion: PeerOptions) -> Result<Box<HttpPeer>> {
        let PeerOptions { left, timed, pooling, is_stream, is_inspected } = occasion;
        let tls = self.tls.as_ref();
        let host = backend.host.as_deref().unwrap_or_default().trim_end_matches('.');
        let sni = tls.map_or("", |tls| if tls.sni.is_empty() { host } else { &tls.sni }).to_owned();
        let mut peer = match &backend.endpoint {
            Endpoint::Inet(address) => HttpPeer::new(*address, tls.is_some(), sni),
            Endpoint::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), tls.is_some(), sni)?,
            Endpoint::Unresolved(name) => {
                return Error::e_explain(ConnectNoRoute, format!("the name {name} has not been resolved"));
            }
        };
        // Pingora distinguishes connections by address, name and client certificate. The group key adds settings that
        // Pingora ignores, such as certificate authorities and versions of HTTP.
        peer.group_key = self.group_key(backend, pooling);
        peer.client_cert_key = tls.and_then(|tls| tls.certificate.clone());
        let options = &mut peer.options;
        options.connection_timeout = Some(self.connect_timeout.min(left));
        options.total_connection_timeout = Some(self.connect_timeout.min(left));
        let (read_timeout, write_timeout) = if is_stream {
            let idle = self.stream_idle_timeout;
            (if timed { idle } else { idle.min(left) }, idle)
        } else {
            (if timed { self.read_timeout } else { self.read_timeout.min(left) }, self.write_timeout)
        };
        options.read_timeout = Some(read_timeout);
        options.write_timeout = Some(write_timeout);
        let is_kept = pooling != Pooling::Fresh;
        options.idle_timeout = Some(if is_kept { self.idle_timeout } else { Duration::ZERO });
        options.tcp_keepalive.clone_from(&self.tcp_keepalive);
        options.h2_ping_interval = self.h2_ping_interval;
        options.max_h2_streams = MAX_H2_STREAMS.into();
        options.h2_stream_window_size = Some(self.h2_window);
        // If the connection had a smaller window than all its streams together, responses that some clients do not
        // read would block all other responses.
        options.h2_connection_window_size = Some(self.h2_window.saturating_mul(MAX_H2_STREAMS.into()));
        let offer = match self.protocol {
            UpstreamProtocol::Http1 => Offer::Http1,
            UpstreamProtocol::Http2 => Offer::Http2,
            UpstreamProtocol::Auto if is_inspected && backend.speaks_http1() => Offer::EitherHttp1SoFar,
            UpstreamProtocol::Auto => Offer::Either,
        };
        options.alpn = offer.alpn();
        if let Some(tls) = tls {
            options.ca.clone_from(&tls.ca);
            options.verify_cert = tls.verify;
            options.verify_hostname = tls.verify && tls.address.is_none();
            options.upstream_tls_handshake_complete_hook.clone_from(&tls.address);
        }
        Ok(Box::new(peer))
    }

    /// Returns a number that distinguishes connections that Pingora alone would treat as equal.
    fn group_key(&self, backend: &BackendState, pooling: Pooling) -> u64 {
        let mut key = AHasher::default();
        (self.identity, backend.idle_connections().generation(), pooling.key()).hash(&mut key);
        key.finish()
    }
}

impl Tls {
    fn new(config: &Upstream, identity: &mut impl Hasher) -> std::result::Result<Self, BadFile> {
        let ca = file("ca_file", &config.ca_file, identity, |pem| {
            let authorities = X509::stack_from_pem(pem)?;
            Ok(Arc::new(authorities.into_boxed_slice()))
        })?;
        if ca.as_ref().is_some_and(|ca| ca.is_empty()) {
            return Err(BadFile {
                key: "ca_file",
                detail: format!("'{}' holds no certificate", config.ca_file),
            });
        }
        let chain = file("client_cert_file", &config.client_cert_file, identity, X509::stack_from_pem)?;
        let key = file("client_key_file", &config.client_key_file, identity, PKey::private_key_from_pem)?;
        let certificate = match (chain, key) {
            (Some(chain), Some(key)) => Some((chain, key)),
            _ => None,
        };
        if let Some((chain, key)) = &certificate {
            let is_its_key =
                chain.first().and_then(|leaf| leaf.public_key().ok()).is_some_and(|of| of.public_eq(key));
            if !is_its_key {
                let (key, certificate) = (&config.client_key_file, &config.client_cert_file);
                let detail = format!("'{key}' is not the key of the certificate in '{certificate}'");
                return Err(BadFile { key: "client_key_file", detail });
            }
        }
        let certificate = certificate.map(|(chain, key)| Arc::new(CertKey::new(chain, key)));
        let address = config.sni.parse().ok().filter(|_| config.verify).map(address_hook);
        Ok(Tls { sni: config.sni.clone(), ca, certificate, verify: config.verify, address })
    }
}

/// Returns a new number for a connection that no other request may use.
fn next_group() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns `secs` as a duration; `None` for 0.
fn seconds(secs: u32) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_secs(secs.into()))
}

/// Returns settings with which TCP keep-alive begins after `secs` seconds of silence; `None` for 0. Only the system
/// limits how long sent data may stay unacknowledged. A limit of the gateway would end connections to backends that
/// are only slow to read.
fn tcp_keepalive(secs: u32) -> Option<TcpKeepalive> {
    let idle = seconds(secs)?;
    let interval = (idle / KEEPALIVE_PROBES).max(Duration::from_secs(1));
    let count = KEEPALIVE_PROBES as usize;
    Some(TcpKeepalive { idle, interval, count, user_timeout: Duration::ZERO })
}

/// Returns the parsed content of the file at `path`; `None` if `path` is empty.
fn file<T>(
    key: &'static str,
    path: &str,
    identity: &mut impl Hasher,
    read: impl FnOnce(&[u8]) -> std::result::Result<T, openssl::error::ErrorStack>,
) -> std::result::Result<Option<T>, BadFile> {
    if path.is_empty() {
        return Ok(None);
    }
    let pem = std::fs::read(path)
        .map_err(|error| BadFile { key, detail: format!("cannot read '{path}': {error}") })?;
    (key, &pem).hash(identity);
    match read(&pem) {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            let reason = error
                .errors()
                .first()
                .and_then(|error| error.reason())
                .unwrap_or("there is no PEM block in it");
            Err(BadFile { key, detail: format!("'{path}' cannot be read as PEM: {reason}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::upstream::backend::tests::backend;

    const OCCASION: PeerOptions = PeerOptions {
        left: Duration::from_secs(5),
        timed: true,
        pooling: Pooling::Shared,
        is_stream: false,
        is_inspected: true,
    };

    fn hash(config: &Upstream, occasion: PeerOptions) -> u64 {
        use pingora::upstreams::peer::Peer;
        let metrics = Metrics::new().unwrap();
        PeerSettings::new(config).unwrap().peer(&backend(&metrics, "a"), occasion).unwrap().reuse_hash()
    }

    #[test]
    fn connections_that_differ_are_not_shared() {
        let plain = Upstream::default();
        let tls = Upstream { tls: true, sni: "a.example".to_owned(), ..Upstream::default() };
        let others = [
            plain.clone(),
            Upstream { protocol: UpstreamProtocol::Http2, ..plain },
            tls.clone(),
            Upstream { sni: "b.example".to_owned(), ..tls.clone() },
            Upstream { protocol: UpstreamProtocol::Auto, ..tls.clone() },
            Upstream { protocol: UpstreamProtocol::Http2, ..tls.clone() },
            Upstream { verify: false, ..tls.clone() },
        ];
        let hashes: std::collections::HashSet<u64> =
            others.iter().map(|config| hash(config, OCCASION)).collect();
        assert_eq!(hashes.len(), others.len());
        let slower = Upstream { read_timeout_secs: 60.try_into().unwrap(), ..tls.clone() };
        assert_eq!(hash(&slower, OCCASION), hash(&tls, OCCASION), "timeouts make no other connection");
        let pooled = [Pooling::Shared, Pooling::Fresh, Pooling::Pinned(0), Pooling::Pinned(1)]
            .map(|pooling| hash(&tls, PeerOptions { pooling, ..OCCASION }));
        let again = hash(&tls, PeerOptions { pooling: Pooling::Fresh, ..OCCASION });
        assert!(!pooled.contains(&again), "a new connection is nobody else's, not even for a moment");
        assert_eq!(pooled.iter().collect::<std::collections::HashSet<_>>().len(), pooled.len());
    }

    #[test]
    fn unreadable_or_invalid_file_is_named_in_error() {
        let with = |set: fn(&mut Upstream, String), path: &str| {
            let mut config = Upstream { tls: true, ..Upstream::default() };
            set(&mut config, path.to_owned());
            PeerSettings::new(&config).err().unwrap()
        };
        let missing = with(|config, path| config.ca_file = path, "/no/such/file");
        assert!(
            missing.key == "ca_file" && missing.detail.contains("cannot read '/no/such/file'"),
            "{missing:?}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let empty = with(|config, path| config.ca_file = path, path);
        assert!(empty.detail.contains("holds no certificate"), "{empty:?}");
        std::fs::write(path, "nonsense").unwrap();
        let wrong = with(|config, path| config.client_key_file = path, path);
        assert!(
            wrong.key == "client_key_file" && wrong.detail.contains("cannot be read as PEM"),
            "{wrong:?}"
        );
    }
}
