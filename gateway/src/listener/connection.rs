//! Preparation of an accepted connection, up to a stream that carries HTTP: the PROXY header, TLS, and the detection of
//! HTTP/2. The PROXY header and TLS have a short timeout. After TLS, a connection may be idle for longer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::{ALPN, GetSocketDigest, Ssl, Stream};
use prometheus::IntCounter;
use tokio::io::AsyncReadExt;
use tracing::debug;

use super::addresses::{AddressPermit, Addresses};
use super::peer;
use crate::downstream::http2::StreamLimit;
use crate::downstream::request_limit::RequestLimit;
use crate::downstream::stream::{Bounds, ClientStream, HeadTerms, LATE_HEAD, Refusal};
use crate::live::{ProxySettings, Snapshot, Store};
use crate::reply::Problem;
use crate::telemetry::{Limit, Metrics};
use crate::tls::acme::Challenges;
use crate::tls::{Acceptor, Hello, classify, server_name};

/// Maximum time for the PROXY header and the TLS handshake together. The HTTP/2 preface over TLS has the same timeout,
/// because a client sends the preface at once, and not only with its first request (RFC 9113 3.4).
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Preface that begins an HTTP/2 connection (RFC 9113 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Refusal of a request without TLS on a TLS port.
const WITHOUT_TLS: Refusal = Refusal {
    problem: Problem::BadRequest,
    detail: "this port speaks HTTPS, and the client sent a request without TLS",
};

/// Opener of accepted connections: it turns each one into a stream that carries HTTP.
pub struct Opener {
    live: Arc<Store>,
    metrics: Arc<Metrics>,
    acceptor: Acceptor,
    challenges: Arc<Challenges>,
    /// Limits of request heads.
    head: HeadTerms,
    /// Addresses of the listeners; the bool is true if the listener speaks TLS.
    listeners: Vec<(bool, SocketAddr)>,
    addresses: Arc<Addresses>,
}

/// Connection that is ready for HTTP.
pub(super) struct Opened {
    pub(super) stream: ClientStream,
    /// Permit for one connection from the client's address; `None` if connections from it have no limit.
    pub(super) place: Option<AddressPermit>,
    /// Request limit and maximum idle time of an HTTP/2 connection; `None` over HTTP/1.
    pub(super) request_limit: Option<(Arc<RequestLimit>, Duration)>,
}

/// Connection after the PROXY header and TLS.
enum Prepared {
    /// Stream whose HTTP version TLS has negotiated, or whose request will be refused.
    Http(ClientStream),
    /// Stream without TLS; its HTTP version is not known yet.
    Cleartext(TcpStream),
}

impl Opener {
    /// Creates an opener for connections to `listeners`, with the configuration of `live`. The bool of a listener is
    /// true if it speaks TLS.
    ///
    /// # Errors
    /// Returns an error if OpenSSL does not support a feature that the gateway needs.
    pub fn new(
        live: Arc<Store>,
        metrics: Arc<Metrics>,
        challenges: Arc<Challenges>,
        listeners: Vec<(bool, SocketAddr)>,
    ) -> Result<Self, openssl::error::ErrorStack> {
        let current = live.clone();
        let head = HeadTerms::new(move || {
            let snapshot = current.load();
            let (time, idle) = (snapshot.proxy.header_timeout, snapshot.proxy.keepalive_timeout);
            Bounds { size: snapshot.largest_head, time, idle }
        });
        let addresses = Arc::default();
        Ok(Opener { live, metrics, acceptor: Acceptor::new()?, challenges, head, listeners, addresses })
    }

    /// Prepares `stream` for HTTP. Returns `None` if the connection ends during the preparation.
    pub(super) async fn open(&self, stream: Stream) -> Option<Opened> {
        let Ok(stream) = stream.into_any().downcast::<TcpStream>() else { return None };
        let snapshot = self.live.load();
        let proxy = &snapshot.proxy;
        let Ok(prepared) = tokio::time::timeout(OPEN_TIMEOUT, self.prepare(*stream, &snapshot)).await else {
            self.metrics.connections_abandoned.inc();
            debug!("a client took too long to open its connection");
            return None;
        };
        let (stream, place) = prepared?;
        let stream = match stream {
            Prepared::Http(stream) => stream,
            Prepared::Cleartext(stream) => self.cleartext(stream, proxy).await?,
        };
        let too_slow = self.metrics.limits.counter(Limit::SendRate).clone();
        let mut stream = stream.with_min_write_rate(proxy.min_send_rate, too_slow);
        let idle = proxy.keepalive_timeout;
        let request_limit = stream.count(proxy.max_requests_per_connection, idle).ok()?;
        Some(Opened {
            stream,
            place,
            request_limit: request_limit.map(|request_limit| (request_limit, idle)),
        })
    }

    /// Determines the connection's client, and begins TLS if needed. Returns `None` if the connection is over.
    async fn prepare(
        &self,
        mut stream: TcpStream,
        snapshot: &Snapshot,
    ) -> Option<(Prepared, Option<AddressPermit>)> {
        let proxy = &snapshot.proxy;
        let is_https = self.is_https(&stream);
        let client = match peer::client(&mut stream, proxy).await {
            Ok(client) => client,
            Err(reason) => {
                self.metrics.proxy_headers_refused.inc();
                debug!(peer = ?peer::address(&stream), reason, "a connection was refused");
                return None;
            }
        };
        let limit = proxy.max_connections_per_ip;
        let place = match client.filter(|_| limit > 0).map(|client| self.addresses.enter(client, limit)) {
            // The connection is closed before anything is read, as over the total limit: see `Counted`.
            Some(None) => {
                self.metrics.connections_refused_of_address.inc();
                return None;
            }
            place => place.flatten(),
        };
        let prepared = match is_https {
            true => Prepared::Http(self.begin_tls(stream, snapshot).await?),
            false => Prepared::Cleartext(stream),
        };
        Some((prepared, place))
    }

    /// Begins TLS, and prepares the stream for the negotiated protocol. Returns `None` if the connection is over.
    async fn begin_tls(&self, mut stream: TcpStream, snapshot: &Snapshot) -> Option<ClientStream> {
        if begins_with_text(&mut stream).await {
            self.metrics.tls_handshakes_failed.inc();
            return Some(self.plain(stream).refusing(WITHOUT_TLS));
        }
        let peer = peer::address(&stream);
        let certificates = snapshot.certificates.clone();
        // The ClientHello must be known before the handshake in two cases: an ACME server may connect, or a virtual
        // host asks its clients for certificates.
        let hello = match self.challenges.has_tls() || certificates.asks_clients() {
            true => peek_at_hello(&mut stream).await,
            false => Vec::new(),
        };
        if self.challenges.has_tls() && classify(&hello) == Hello::Validation {
            if let Err(error) = self.challenges.validate(stream).await {
                debug!(?peer, %error, "could not prove control of a name to an ACME server");
            }
            return None;
        }
        match self.acceptor.accept(stream, certificates, server_name(&hello).as_deref()).await {
            Ok(stream) => {
                self.metrics.tls_handshakes.inc();
                let stream = ClientStream::new(Box::new(stream));
                let speaks_http2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
                Some(match speaks_http2 {
                    true => stream.awaiting(PREFACE.len(), OPEN_TIMEOUT).with_http2_heads(
                        self.head.clone(),
                        PREFACE.len(),
                        self.streams(&snapshot.proxy),
                        self.malformed(),
                    ),
                    false => stream.with_http1(self.head.clone()),
                })
            }
            Err(error) => {
                self.metrics.tls_handshakes_failed.inc();
                debug!(?peer, %error, "a TLS handshake failed");
                None
            }
        }
    }

    /// Determines whether a client without TLS speaks HTTP/2. The connection is idle until its first byte, with which a
    /// head begins. Returns `None` if the connection has been idle for too long.
    async fn cleartext(&self, mut stream: TcpStream, proxy: &ProxySettings) -> Option<ClientStream> {
        if !proxy.http2_cleartext {
            return Some(self.plain(stream));
        }
        tokio::time::timeout(proxy.keepalive_timeout, await_first_byte(&mut stream)).await.ok()?;
        Some(match tokio::time::timeout(proxy.header_timeout, begins_with_preface(&mut stream)).await {
            Ok(true) => ClientStream::new(Box::new(stream)).with_http2().with_http2_heads(
                self.head.clone(),
                PREFACE.len(),
                self.streams(proxy),
                self.malformed(),
            ),
            Ok(false) => self.plain(stream),
            Err(_) => self.plain(stream).refusing(LATE_HEAD),
        })
    }

    fn streams(&self, proxy: &ProxySettings) -> StreamLimit {
        StreamLimit {
            most: proxy.max_http2_streams,
            open: self.metrics.http2_streams.clone(),
            refused: self.metrics.limits.counter(Limit::Http2Streams).clone(),
        }
    }

    fn malformed(&self) -> IntCounter {
        self.metrics.limits.counter(Limit::Http2Malformed).clone()
    }

    fn plain(&self, stream: TcpStream) -> ClientStream {
        ClientStream::new(Box::new(stream)).with_http1(self.head.clone())
    }

    fn is_https(&self, stream: &TcpStream) -> bool {
        // If no listener speaks TLS, the local address need not be looked up.
        if self.listeners.iter().all(|(is_https, _)| !is_https) {
            return false;
        }
        let digest = stream.get_socket_digest();
        let Some(local) = digest.as_ref().and_then(|digest| digest.local_addr()?.as_inet()) else {
            return false;
        };
        speaks_tls(&self.listeners, *local)
    }
}

/// Returns true if the listener that accepted a connection to `local` speaks TLS. A listener with exactly this address
/// is preferred, then the wildcard of the same IP version, then the IPv6 wildcard.
fn speaks_tls(listeners: &[(bool, SocketAddr)], local: SocketAddr) -> bool {
    let ip = local.ip().to_canonical();
    let fits = |listener: IpAddr| match listener.to_canonical() {
        exact if exact == ip => 3,
        any if any.is_unspecified() && any.is_ipv4() == ip.is_ipv4() => 2,
        any if any.is_unspecified() && any.is_ipv6() => 1,
        _ => 0,
    };
    let of_port = listeners.iter().filter(|(_, listener)| listener.port() == local.port());
    let best =
        of_port.map(|(is_https, listener)| (fits(listener.ip()), *is_https)).max_by_key(|(fit, _)| *fit);
    best.is_some_and(|(fit, is_https)| fit > 0 && is_https)
}

/// Returns the bytes of the ClientHello, as far as they have arrived. They stay in `stream` for the handshake.
async fn peek_at_hello(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::with_capacity(2048);
    while classify(&seen) == Hello::Incomplete {
        match stream.read_buf(&mut seen).await {
            Ok(1..) => {}
            // The next reader will see the same end or error.
            _ => break,
        }
    }
    stream.rewind(&seen);
    seen
}

/// Waits for the first byte, or for the end of the connection.
async fn await_first_byte(stream: &mut TcpStream) {
    let mut first = [0; 1];
    if let Ok(1..) = stream.read(&mut first).await {
        stream.rewind(&first);
    }
}

/// Returns true if the connection begins with a plain request in place of a TLS handshake. A request begins with a
/// letter, and a handshake with byte 22 (RFC 8446 5.1).
async fn begins_with_text(stream: &mut TcpStream) -> bool {
    let mut first = [0; 1];
    match stream.read(&mut first).await {
        Ok(1..) => stream.rewind(&first),
        // The next reader will see the same end or error.
        _ => return false,
    }
    first[0].is_ascii_alphabetic()
}

/// Returns true if the client speaks HTTP/2. Reads no further than necessary, because an HTTP/1.0 request may be
/// shorter than the preface, and its client then waits for a response.
async fn begins_with_preface(stream: &mut TcpStream) -> bool {
    let mut seen = [0; PREFACE.len()];
    let mut length = 0;
    while length < seen.len() && PREFACE.starts_with(&seen[..length]) {
        match stream.read(&mut seen[length..]).await {
            Ok(read @ 1..) => length += read,
            // The next reader will see the same end or error.
            _ => break,
        }
    }
    stream.rewind(&seen[..length]);
    seen[..length] == *PREFACE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_specific_listener_decides_about_tls() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listeners = [
            (true, at("0.0.0.0:443")),
            (false, at("[::1]:443")),
            (false, at("127.0.0.1:80")),
            (true, at("[::]:8443")),
            (false, at("127.0.0.1:8443")),
            (false, at("0.0.0.0:9443")),
            (true, at("[::]:9443")),
        ];
        for (local, is_https) in [
            ("127.0.0.1:443", true),
            ("[::ffff:127.0.0.1]:443", true),
            ("[::1]:443", false),
            ("127.0.0.1:80", false),
            ("[::1]:8443", true),
            ("192.0.2.1:8443", true),
            ("127.0.0.1:8443", false),
            ("127.0.0.1:9", false),
            ("127.0.0.1:9443", false),
            ("[::ffff:127.0.0.1]:9443", false),
            ("[::1]:9443", true),
        ] {
            assert_eq!(speaks_tls(&listeners, at(local)), is_https, "{local}");
        }
    }
}
