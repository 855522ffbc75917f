//! A client's stream, between its socket and Pingora: reads can have a [`deadline`], what has been written goes out
//! while Pingora waits for a backend, and a WebSocket takes it over.
//!
//! Pingora leaves the parts of a body of known length in a buffer until that is full, or the body whole; a backend
//! that sends a little at a time would be silent for its client. But while it waits for the backend it also reads
//! from the client, to see whether it leaves, and by those reads the stream knows that nothing more is there to be
//! written for now.

pub mod deadline;
mod sending;
pub mod turns;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use self::deadline::Deadline;
use self::sending::Sending;
use self::turns::Turns;
use crate::pace::Terms;
use crate::websocket::ClientSide;

/// How long the end of a stream may take where nothing else is said.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A client's stream on which reads can be given a deadline.
#[derive(Debug)]
pub struct ClientStream {
    inner: Stream,
    deadline: Deadline,
    /// How it takes what it is sent; `None`: as it likes.
    sending: Option<Sending>,
    /// Whether something written may still be in the buffer.
    unflushed: bool,
    /// How many bytes must come before its first deadline.
    awaited: usize,
    /// Whether HTTP/2 is spoken on it, though nobody has agreed on that in TLS.
    prior_knowledge: bool,
    /// The requests that it may still make, where HTTP/2 is spoken and they are counted.
    turns: Option<Arc<ProxyDigest>>,
    /// The client's side of a WebSocket, where one is asked for.
    websocket: ClientSide,
}

impl ClientStream {
    /// A stream without a deadline so far.
    pub fn new(inner: Stream) -> Self {
        ClientStream {
            inner,
            deadline: Deadline::never(),
            sending: None,
            unflushed: false,
            awaited: 0,
            prior_knowledge: false,
            turns: None,
            websocket: ClientSide::default(),
        }
    }

    /// One on which the first `bytes` must come within `patience`: Pingora waits for the preface of HTTP/2 for ever.
    #[must_use]
    pub fn awaiting(self, bytes: usize, patience: Duration) -> Self {
        self.deadline.set(patience);
        ClientStream { awaited: bytes, ..self }
    }

    /// One on which HTTP/2 is spoken with prior knowledge (RFC 9113 3.3).
    #[must_use]
    pub fn with_http2(self) -> Self {
        ClientStream { prior_knowledge: true, ..self }
    }

    /// One whose client must take what it is sent by these terms; `too_slow` counts those that do not.
    #[must_use]
    pub fn taken_by(self, terms: Terms, too_slow: IntCounter) -> Self {
        ClientStream { sending: Some(Sending::new(terms, too_slow)), ..self }
    }

    /// Counts its requests, of which there may be so many, where HTTP/2 is spoken.
    ///
    /// # Errors
    /// Where Pingora does not make a response, which it does.
    pub fn count(&mut self, requests: u32) -> pingora::Result<Option<Arc<Turns>>> {
        if requests == 0 || !matches!(self.selected_alpn_proto(), Some(ALPN::H2)) {
            return Ok(None);
        }
        let turns = Arc::new(Turns::new(requests));
        self.turns = Some(Arc::new(turns::digest(&turns)?));
        Ok(Some(turns))
    }

    /// How it takes what it is sent, where that counts: a WebSocket has terms of its own.
    fn sending(&mut self) -> Option<&mut Sending> {
        self.sending.as_mut().filter(|_| !self.websocket.is_concerned())
    }

    /// Takes note of bytes, of which some may have been awaited.
    fn came(&mut self, bytes: usize) {
        self.awaited = self.awaited.saturating_sub(bytes);
        if self.awaited == 0 {
            self.deadline.lift();
        }
    }
}

/// The client's side of a WebSocket of `session`; `None` where its stream can have none (one of HTTP/2 cannot).
pub fn websocket(session: &Session) -> Option<&ClientSide> {
    stream_of(session).map(|stream| &stream.websocket)
}

/// How long has been waited for the client of `session` to send something, since its connection opened; `None` where
/// its stream does not know (one of HTTP/2 shares the connection with others).
pub fn waited(session: &Session) -> Option<Duration> {
    stream_of(session).map(GetTimingDigest::get_read_pending_time)
}

/// The stream of `session`, where it has one of its own.
fn stream_of(session: &Session) -> Option<&ClientStream> {
    session.as_downstream().stream().and_then(|stream| stream.as_ref().as_any().downcast_ref())
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let this = &mut *self;
        let read = if this.websocket.is_concerned() {
            this.websocket.poll_read(&mut this.inner, cx, buf)
        } else {
            let before = buf.filled().len();
            let read = Pin::new(&mut this.inner).poll_read(cx, buf);
            this.websocket.note(&buf.filled()[before..]);
            read
        };
        if read.is_ready() {
            if self.awaited > 0 {
                self.came(buf.filled().len().saturating_sub(filled));
            }
            return read;
        }
        if self.unflushed && Pin::new(&mut self.inner).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        self.deadline.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

// What follows passes on to the stream inside.

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        match self.sending() {
            Some(sending) => sending.on_write(cx, written),
            None => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        match self.sending() {
            Some(sending) => sending.on_flush(cx, flushed),
            None => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        match self.sending() {
            Some(sending) => sending.on_write(cx, written),
            None => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // Over TLS there is something to be said, and Pingora waits for ever until it is taken.
        let patience = self.sending.as_ref().map(Sending::left);
        let _said = timeout(patience.unwrap_or(LAST_WORDS), self.inner.shutdown()).await;
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for ClientStream {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        if self.prior_knowledge { Some(ALPN::H2) } else { self.inner.selected_alpn_proto() }
    }
}

#[async_trait]
impl Peek for ClientStream {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.turns.clone().or_else(|| self.inner.get_proxy_digest())
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_must_come_in_time_and_the_others_need_not() {
        for (sent, is_in_time) in [(&b""[..], false), (b"abc", false), (b"abcd", true), (b"abcde", true)] {
            let (client, mut other) = duplex(64);
            let mut stream = ClientStream::new(Box::new(client)).awaiting(4, Duration::from_secs(10));
            other.write_all(sent).await.unwrap();
            let mut read = vec![0; sent.len()];
            stream.read_exact(&mut read).await.unwrap();
            let next = tokio::time::timeout(Duration::from_secs(60), stream.read_u8()).await;
            assert_eq!(next.is_err(), is_in_time, "{sent:?}: {next:?}");
        }
    }
}
