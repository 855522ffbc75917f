//! From an accepted socket to a stream on which HTTP is spoken: for whom it is (PROXY protocol), TLS, and
//! whether it begins with HTTP/2. All of it together has a time in which it must be done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr as AnySocketAddr;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream, UniqueID};
use tokio::io::AsyncReadExt;
use tracing::debug;

use super::proxy_protocol;
use crate::config::Cidr;
use crate::deadline::TimedStream;
use crate::live::Store;
use crate::telemetry::Metrics;
use crate::tls::Acceptor;
use crate::tls::acme::{Challenges, Hello, look_at};

/// How long a client may take until it can send its first request.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a client of HTTP/2 begins (RFC 9113 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Opens connections.
pub struct Opener {
    live: Arc<Store>,
    metrics: Arc<Metrics>,
    acceptor: Acceptor,
    challenges: Arc<Challenges>,
    /// The listeners that speak TLS.
    https: Vec<SocketAddr>,
}

impl Opener {
    /// Opens connections as `live` says; those to one of the addresses `https` over TLS.
    ///
    /// # Errors
    /// Where OpenSSL does not know what it must.
    pub fn new(
        live: Arc<Store>,
        metrics: Arc<Metrics>,
        challenges: Arc<Challenges>,
        https: Vec<SocketAddr>,
    ) -> Result<Self, openssl::error::ErrorStack> {
        Ok(Opener { live, metrics, acceptor: Acceptor::new()?, challenges, https })
    }

    /// What HTTP is spoken on; `None` where it does not come to that.
    pub async fn open(&self, stream: Stream) -> Option<TimedStream> {
        let Ok(stream) = stream.into_any().downcast::<TcpStream>() else { return None };
        match tokio::time::timeout(PATIENCE, self.prepare(*stream)).await {
            Ok(opened) => opened,
            Err(_) => {
                self.metrics.connections_abandoned.inc();
                debug!("a client took too long to open its connection");
                None
            }
        }
    }

    async fn prepare(&self, mut stream: TcpStream) -> Option<TimedStream> {
        let snapshot = self.live.load();
        let proxy = &snapshot.config.proxy;
        let is_https = self.is_https(&stream);
        if proxy.proxy_protocol
            && let Err(reason) = introduce(&mut stream, &proxy.trusted_proxies).await
        {
            self.metrics.proxy_headers_refused.inc();
            debug!(peer = ?peer(&stream), reason, "a connection was refused");
            return None;
        }
        if is_https {
            let peer = peer(&stream);
            // Only while an ACME server is awaited, anybody may be one.
            if self.challenges.has_tls() && is_validation(&mut stream).await {
                if let Err(error) = self.challenges.validate(stream).await {
                    debug!(?peer, %error, "an ACME server was not shown that the name leads here");
                }
                return None;
            }
            return match self.acceptor.accept(stream, snapshot.certificates.clone()).await {
                Ok(stream) => {
                    self.metrics.tls_handshakes.inc();
                    Some(TimedStream::new(Box::new(stream)))
                }
                Err(error) => {
                    self.metrics.tls_handshakes_failed.inc();
                    debug!(?peer, %error, "a TLS handshake failed");
                    None
                }
            };
        }
        if proxy.http2_cleartext && begins_with_preface(&mut stream).await {
            return Some(TimedStream::new(Box::new(stream)).with_http2());
        }
        Some(TimedStream::new(Box::new(stream)))
    }

    fn is_https(&self, stream: &TcpStream) -> bool {
        // Mostly there is one listener of each kind, and mostly none that speaks TLS has nothing to ask.
        if self.https.is_empty() {
            return false;
        }
        let digest = stream.get_socket_digest();
        let local = digest.as_ref().and_then(|digest| digest.local_addr()?.as_inet());
        local.is_some_and(|local| {
            let is_at = |listener: &SocketAddr| {
                let ip = listener.ip();
                listener.port() == local.port()
                    && (ip.is_unspecified() || ip.to_canonical() == local.ip().to_canonical())
            };
            self.https.iter().any(is_at)
        })
    }
}

fn peer(stream: &TcpStream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}

/// Has the load balancer at the other end say for whom the connection is.
async fn introduce(stream: &mut TcpStream, trusted: &[Cidr]) -> Result<(), String> {
    let peer = peer(stream).ok_or("it has no address")?;
    if !trusted.iter().any(|network| network.contains(peer.ip())) {
        return Err("its PROXY header would not be believed (proxy.trusted_proxies)".to_owned());
    }
    let client = proxy_protocol::read(stream).await.map_err(|error| error.to_string())?;
    if let Some(client) = client {
        let digest = SocketDigest::from_raw_fd(stream.id());
        // It is new, and so has none yet.
        let _ = digest.peer_addr.set(Some(AnySocketAddr::Inet(client)));
        stream.set_socket_digest(digest);
    }
    Ok(())
}

/// Whether the client is an ACME server that validates a name (RFC 8737), and no client of anybody's.
async fn is_validation(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::with_capacity(2048);
    while look_at(&seen) == Hello::Incomplete {
        match stream.read_buf(&mut seen).await {
            Ok(1..) => {}
            // Whoever reads next will see the same.
            _ => break,
        }
    }
    stream.rewind(&seen);
    look_at(&seen) == Hello::Validation
}

/// Whether HTTP/2 is spoken. Looks no further than it must: a request of HTTP/1.0 may be shorter than the
/// preface, and whoever sent it waits for an answer.
async fn begins_with_preface(stream: &mut TcpStream) -> bool {
    let mut seen = [0; PREFACE.len()];
    let mut length = 0;
    while length < seen.len() && PREFACE.starts_with(&seen[..length]) {
        match stream.read(&mut seen[length..]).await {
            Ok(read @ 1..) => length += read,
            // Whoever reads next will see the same.
            _ => break,
        }
    }
    stream.rewind(&seen[..length]);
    seen[..length] == *PREFACE
}
