//! What happens to a client's stream while Pingora waits for a backend: a deadline may pass, and what has been
//! written goes out.
//!
//! Pingora has a timeout for each read from a backend, which bounds neither a head that drips nor all
//! attempts together, and which holds for the body as well. So the client's stream is wrapped: while Pingora
//! waits for the backend it also reads from the client, to see whether it leaves, and past the deadline that
//! read fails. The request then ends like any other that fails, with an answer.
//!
//! By the same reads the stream knows that nothing more is there to be written for now. Pingora leaves the parts
//! of a body of known length in a buffer until that is full, or the body whole; a backend that sends a little at
//! a time would be silent for its client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::websocket::ClientSide;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A deadline that a read has failed at.
const PASSED: u64 = u64::MAX - 1;

/// A client's stream on which reads can be given a deadline.
#[derive(Debug)]
pub struct TimedStream {
    inner: Stream,
    opened: Instant,
    /// Milliseconds after `opened`, [`NEVER`] or [`PASSED`]. Atomic because Pingora lends the stream out shared
    /// only; nobody else writes it.
    deadline: AtomicU64,
    /// Made when a read first waits, and left to run from one request to the next: setting a timer for each
    /// request would cost more than waking up once in vain.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether something written may still be in the buffer.
    unflushed: bool,
    /// How many bytes must come before its first deadline.
    awaited: usize,
    /// Whether HTTP/2 is spoken on it, though nobody has agreed on that in TLS.
    prior_knowledge: bool,
    /// The client's side of a WebSocket, where one is asked for.
    websocket: ClientSide,
}

impl TimedStream {
    /// A stream without a deadline so far.
    pub fn new(inner: Stream) -> Self {
        TimedStream {
            inner,
            opened: Instant::now(),
            deadline: AtomicU64::new(NEVER),
            timer: None,
            unflushed: false,
            awaited: 0,
            prior_knowledge: false,
            websocket: ClientSide::default(),
        }
    }

    /// One on which the first `bytes` must come within `patience`: Pingora waits for the preface of HTTP/2 for ever.
    #[must_use]
    pub fn awaiting(self, bytes: usize, patience: Duration) -> Self {
        let until = u64::try_from(patience.as_millis()).unwrap_or(NEVER);
        TimedStream { awaited: bytes, deadline: AtomicU64::new(until), ..self }
    }

    /// One on which HTTP/2 is spoken with prior knowledge (RFC 9113 3.3).
    #[must_use]
    pub fn with_http2(self) -> Self {
        TimedStream { prior_knowledge: true, ..self }
    }

    /// Takes note of bytes, of which some may have been awaited.
    fn came(&mut self, bytes: usize) {
        self.awaited = self.awaited.saturating_sub(bytes);
        if self.awaited == 0 {
            *self.deadline.get_mut() = NEVER;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::Relaxed) {
            NEVER | PASSED => None,
            millis => Some(self.opened + Duration::from_millis(millis)),
        }
    }

    /// Ready once the deadline, if there is one, has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                self.deadline.store(PASSED, Ordering::Relaxed);
                return Poll::Ready(());
            }
            // It was set for an earlier request.
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// From now on, reads from the client of `session` fail when `left` has passed. False where its stream cannot
/// have a deadline (a stream of HTTP/2 has none of its own).
pub fn arm(session: &Session, left: Duration) -> bool {
    set(session, |stream| u64::try_from((stream.opened.elapsed() + left).as_millis()).unwrap_or(NEVER))
}

/// From now on, reads from the client of `session` may take any time. False as for [`arm`].
pub fn disarm(session: &Session) -> bool {
    set(session, |_| NEVER)
}

/// Whether a read from the client of `session` has failed at its deadline.
pub fn has_passed(session: &Session) -> bool {
    timed(session).is_some_and(|stream| stream.deadline.load(Ordering::Relaxed) == PASSED)
}

/// The client's side of a WebSocket of `session`; `None` where its stream can have none (one of HTTP/2 cannot).
pub fn websocket(session: &Session) -> Option<&ClientSide> {
    timed(session).map(|stream| &stream.websocket)
}

fn set(session: &Session, deadline: impl FnOnce(&TimedStream) -> u64) -> bool {
    let Some(stream) = timed(session) else { return false };
    stream.deadline.store(deadline(stream), Ordering::Relaxed);
    true
}

fn timed(session: &Session) -> Option<&TimedStream> {
    session.as_downstream().stream().and_then(|stream| stream.as_ref().as_any().downcast_ref())
}

impl AsyncRead for TimedStream {
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
        self.poll_deadline(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

// What follows passes on to the stream inside.

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
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
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for TimedStream {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for TimedStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for TimedStream {
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
impl Peek for TimedStream {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

impl GetTimingDigest for TimedStream {
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

impl GetProxyDigest for TimedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for TimedStream {
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

    fn at(stream: &TimedStream, deadline_ms: u64) {
        stream.deadline.store(deadline_ms, Ordering::Relaxed);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_must_come_in_time_and_the_others_need_not() {
        for (sent, is_in_time) in [(&b""[..], false), (b"abc", false), (b"abcd", true), (b"abcde", true)] {
            let (client, mut other) = duplex(64);
            let mut stream = TimedStream::new(Box::new(client)).awaiting(4, Duration::from_secs(10));
            other.write_all(sent).await.unwrap();
            let mut read = vec![0; sent.len()];
            stream.read_exact(&mut read).await.unwrap();
            let next = tokio::time::timeout(Duration::from_secs(60), stream.read_u8()).await;
            assert_eq!(next.is_err(), is_in_time, "{sent:?}: {next:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_fails_at_the_deadline_and_not_before() {
        let (client, mut other) = duplex(64);
        let mut stream = TimedStream::new(Box::new(client));
        let start = Instant::now();
        at(&stream, 100);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 100);

        // A later request has a later deadline, whatever the timer was set for.
        at(&stream, 300);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 300);

        // Or an earlier one, or none; and what is there can be read past any.
        at(&stream, 5_000);
        let waiting = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(waiting.is_err());
        at(&stream, 600);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 600);
        at(&stream, NEVER);
        assert!(tokio::time::timeout(Duration::from_secs(3600), stream.read_u8()).await.is_err());
        at(&stream, 1);
        other.write_u8(7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 7);
    }
}
