//! Connection to a backend for a WebSocket. The gateway makes the connection, and lends it to Pingora until the 101.
//!
//! Pingora gets a socket that forwards the bytes that Pingora writes. The socket returns the backend's response only
//! after the whole request has been sent. After the head of a 101, the socket returns no more bytes, because later
//! bytes are for the tunnel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::prelude::*;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::Scheme;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Upgrade;
use crate::upstream::connection::BackendConnector;

/// Number of flushes until the request has been sent: one for its head, and one for the end of its body.
const FLUSHES: u8 = 2;

/// Returns a peer with which Pingora connects to `peer` over a connection that `upgrade` can take back. `connector`
/// performs the TLS handshake if `peer` needs one.
///
/// `peer` must be made with [`Pooling::Fresh`](crate::upstream::Pooling::Fresh). Otherwise Pingora's pool would find
/// an idle connection for ordinary requests, because the pool ignores the connector. No tunnel can begin on such a
/// connection.
pub fn intercept_upgrade(
    mut peer: Box<HttpPeer>,
    upgrade: &Arc<Upgrade>,
    connector: &BackendConnector,
) -> Box<HttpPeer> {
    // HTTP/2 has no Upgrade (RFC 9113 8.6).
    peer.options.set_http_version(1, 1);
    // No read timeout: other code limits the time until the 101, and Pingora does not read after it.
    peer.options.read_timeout = None;
    peer.options.idle_timeout = Some(std::time::Duration::ZERO);
    let mut lent = peer.clone();
    lent.scheme = Scheme::HTTP;
    lent.client_cert_key = None;
    // The gateway's connector applies these timeouts itself.
    lent.options.connection_timeout = None;
    lent.options.total_connection_timeout = None;
    let lender = UpgradeConnector { connector: connector.clone(), peer: *peer, upgrade: upgrade.clone() };
    lent.options.custom_l4 = Some(Arc::new(lender));
    lent
}

struct UpgradeConnector {
    connector: BackendConnector,
    peer: HttpPeer,
    upgrade: Arc<Upgrade>,
}

impl fmt::Debug for UpgradeConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeConnector").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for UpgradeConnector {
    async fn connect(&self, _address: &SocketAddr) -> Result<TcpStream> {
        let connection = self.connector.connect(&self.peer).await?;
        self.upgrade.state.lock().backend = Some(connection);
        let socket = GatedStream { upgrade: self.upgrade.clone(), flushes: 0, waits: None };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

/// Socket that Pingora gets in place of the connection to the backend.
#[derive(Debug)]
struct GatedStream {
    upgrade: Arc<Upgrade>,
    flushes: u8,
    /// Waker of a read that waits until the request has been sent; `None` if no read waits.
    waits: Option<Waker>,
}

impl AsyncRead for GatedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flushes < FLUSHES {
            this.waits = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match &mut this.upgrade.state.lock().backend {
            // After the 101, the bytes are for the tunnel. Pingora learns of the tunnel's end from the client's side.
            Some(backend) if backend.has_switched() => Poll::Pending,
            Some(backend) => Pin::new(backend).poll_read(cx, buf),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.upgrade.state.lock().backend {
            Some(backend) => Pin::new(backend).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.upgrade.state.lock().backend {
            Some(backend) => Pin::new(backend).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        };
        if flushed.is_ready() && this.flushes < FLUSHES {
            this.flushes += 1;
            if let Some(waits) = this.waits.take() {
                waits.wake();
            }
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.upgrade.state.lock().backend {
            Some(backend) => Pin::new(backend).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for GatedStream {
    fn drop(&mut self) {
        // If the tunnel has not taken the connection, this closes the connection.
        self.upgrade.state.lock().backend = None;
    }
}

impl VirtualSocket for GatedStream {
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        // The options have been set when the connection was made.
        Ok(())
    }
}
