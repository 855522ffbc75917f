//! The connection to a backend for a WebSocket: made here, and lent to Pingora as far as the 101.
//!
//! Pingora gets a socket that passes on what is written, gives out the backend's answer only once the request has
//! been dealt with to its end, and of that answer no byte behind the head of a 101: those belong to the tunnel.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use pingora::connectors::TransportConnector;
use pingora::connectors::l4::Connect;
use pingora::prelude::*;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::Scheme;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Upgrade;
use super::answer::Answer;

/// How much is read at a time.
const CHUNK: usize = 4 * 1024;

/// Flushes until the request is behind us: one by its head, one by the end of its body.
const FLUSHES: u8 = 2;

/// Connects to backends for WebSockets. Such a connection is always a new one: it is never given back.
#[derive(Clone)]
pub struct Connector(Arc<TransportConnector>);

impl Default for Connector {
    fn default() -> Self {
        Connector(Arc::new(TransportConnector::new(None)))
    }
}

impl Connector {
    /// A peer for Pingora that leads to `peer`, by a connection that `upgrade` can take back. TLS, where there is
    /// any, is seen to on the way.
    pub fn lend(&self, mut peer: Box<HttpPeer>, upgrade: &Arc<Upgrade>) -> Box<HttpPeer> {
        // HTTP/2 knows no Upgrade (RFC 9113 8.6).
        peer.options.set_http_version(1, 1);
        // As long as it may take until the 101, somebody else watches; and what comes after is not for Pingora.
        peer.options.read_timeout = None;
        peer.options.idle_timeout = Some(std::time::Duration::ZERO);
        let mut lent = peer.clone();
        lent.scheme = Scheme::HTTP;
        lent.client_cert_key = None;
        // The one that connects has the timeouts.
        lent.options.connection_timeout = None;
        lent.options.total_connection_timeout = None;
        let lender = Lender { connector: self.clone(), peer: *peer, upgrade: upgrade.clone() };
        lent.options.custom_l4 = Some(Arc::new(lender));
        lent
    }
}

struct Lender {
    connector: Connector,
    peer: HttpPeer,
    upgrade: Arc<Upgrade>,
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lender").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for Lender {
    async fn connect(&self, _address: &SocketAddr) -> Result<TcpStream> {
        let connection = self.connector.0.new_stream(&self.peer).await?;
        self.upgrade.state.lock().backend = Some(connection);
        let socket =
            Lent { upgrade: self.upgrade.clone(), answer: Answer::default(), flushes: 0, waits: None };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

/// What Pingora has of the connection.
#[derive(Debug)]
struct Lent {
    upgrade: Arc<Upgrade>,
    answer: Answer,
    flushes: u8,
    /// Who waits for the request to be behind us.
    waits: Option<Waker>,
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flushes < FLUSHES {
            this.waits = Some(cx.waker().clone());
            return Poll::Pending;
        }
        loop {
            if this.answer.give(buf) {
                return Poll::Ready(Ok(()));
            }
            let mut state = this.upgrade.state.lock();
            if this.answer.has_switched() {
                // The tunnel's from here on. Pingora learns of its end from the client's side.
                state.early.append(&mut this.answer.seen);
                return Poll::Pending;
            }
            let Some(backend) = &mut state.backend else { return Poll::Pending };
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            match Pin::new(backend).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            if read.filled().is_empty() {
                this.answer.end();
                if this.answer.seen.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            this.answer.add(read.filled());
        }
    }
}

impl AsyncWrite for Lent {
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

impl Drop for Lent {
    fn drop(&mut self) {
        // Whatever the tunnel has not taken goes with it.
        self.upgrade.state.lock().backend = None;
    }
}

impl VirtualSocket for Lent {
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        // The connection was made with its options.
        Ok(())
    }
}
