//! Stream between a client's socket and Pingora. It inspects requests over HTTP/1 (`http1`) and HTTP/2 (`http2`), and
//! only valid ones reach Pingora. Its reads can have a deadline (`read_deadline`). It flushes written bytes while
//! Pingora waits for a backend. After an upgrade to WebSocket, a tunnel can use it.
//!
//! Pingora buffers a response body of known length until the buffer is full or the body is complete. So a client would
//! receive nothing from a backend that sends a little at a time. But while Pingora waits for the backend, it also reads
//! from the client, to notice when the client leaves. Such a read shows that Pingora has nothing more to write for now:
//! the stream flushes.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{ALPN, GetTimingDigest, Peek, Stream};
use pingora::proxy::Session;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use crate::downstream::bounds::{Bounds, HeadTerms};
use crate::downstream::deadline::Deadline;
pub use crate::downstream::http1::Refusal;
use crate::downstream::http1::{Awaited, RequestInspector};
use crate::downstream::http2::{Http2, StreamLimit};
use crate::downstream::request_limit::{self, RequestLimit};
use crate::downstream::write_rate::WriteRate;
use crate::reply::Problem;
use crate::util::min_rate;
use crate::util::stream_traits::forward_stream_traits;
use crate::websocket::ClientSide;

/// Maximum time for reading and dropping unwanted bytes before the connection is closed. A close with unread bytes
/// would be a reset, and the client might lose the response (RFC 9112 9.6).
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// Maximum number of unwanted bytes that are read and dropped before an HTTP/1 connection is closed.
pub(super) const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Refusal of a request whose head takes too long.
pub const LATE_HEAD: Refusal = Refusal {
    problem: Problem::RequestTimeout,
    detail: "the complete header did not arrive in time (proxy.header_timeout_secs)",
};

/// Maximum number of unwanted bytes that are read and dropped before an HTTP/2 connection is closed. It is lower than
/// over HTTP/1, because the windows of the connection limit what a client can send.
pub(super) const LINGER_BYTES_HTTP2: usize = 1024 * 1024;

/// Stream between a client's socket and Pingora.
#[derive(Debug)]
pub struct ClientStream {
    pub(super) inner: Stream,
    pub(super) deadline: Deadline,
    /// Minimum write rate; `None` disables the check.
    sending: Option<WriteRate>,
    /// True if written bytes may not have been flushed yet.
    unflushed: bool,
    /// Number of bytes that must still arrive before the first deadline is removed; 0 if there is none.
    awaited: usize,
    /// True if the client speaks HTTP/2 without TLS (prior knowledge); false also for HTTP/2 over TLS.
    pub(super) prior_knowledge: bool,
    /// Request limit of an HTTP/2 connection, wrapped in a proxy digest; `None` over HTTP/1.
    pub(super) request_limit: Option<Arc<ProxyDigest>>,
    /// Inspection of requests over HTTP/1; `None` over HTTP/2.
    http1: Option<Http1>,
    /// Inspection of frames over HTTP/2; `None` over HTTP/1.
    pub(super) http2: Option<Box<Http2>>,
    /// Client's side of a WebSocket; unused unless the client asks for one.
    websocket: ClientSide,
    /// Number of bytes that may still be read and dropped before the close; `None` while the stream is open.
    linger_budget: Option<usize>,
    /// Id of the client's own backend connections; 0 if it has none.
    own_connections: AtomicU64,
}

#[derive(Debug)]
struct Http1 {
    inspector: RequestInspector,
    terms: HeadTerms,
    /// Input that the current deadline limits; `Other` if no deadline was set here.
    timed: Awaited,
}

impl Http1 {
    /// Sets the stream's deadline for the input that the gateway now waits for. Pingora has no suitable timeout: its
    /// timeout for idle connections would also limit a head, and does not exist before the first request.
    fn time(&mut self, awaited: Awaited, deadline: &Deadline) {
        if awaited == std::mem::replace(&mut self.timed, awaited) {
            return;
        }
        match awaited {
            Awaited::Request => deadline.set(self.terms.now().idle),
            Awaited::RestOfHead => deadline.set(self.terms.now().time),
            Awaited::Other => deadline.lift(),
        }
    }
}

impl ClientStream {
    /// Creates a stream without a deadline and without inspection.
    pub fn new(inner: Stream) -> Self {
        ClientStream {
            inner,
            deadline: Deadline::never(),
            sending: None,
            unflushed: false,
            awaited: 0,
            prior_knowledge: false,
            request_limit: None,
            http1: None,
            http2: None,
            websocket: ClientSide::default(),
            linger_budget: None,
            own_connections: AtomicU64::new(0),
        }
    }

    /// Enables HTTP/1 inspection with the given limits.
    #[must_use]
    pub fn with_http1(self, terms: HeadTerms) -> Self {
        let http1 = Http1 { inspector: RequestInspector::default(), terms, timed: Awaited::Other };
        ClientStream { http1: Some(http1), ..self }
    }

    /// Enables HTTP/2 inspection of the frames after a preface of `preface` bytes. A whole head must arrive within the
    /// time of `terms`. The open streams count towards `streams`; `malformed` counts malformed requests.
    #[must_use]
    pub fn with_http2_heads(
        self,
        terms: HeadTerms,
        preface: usize,
        streams: StreamLimit,
        malformed: IntCounter,
    ) -> Self {
        ClientStream { http2: Some(Box::new(Http2::new(terms, preface, streams, malformed))), ..self }
    }

    /// Makes the gateway refuse the first request without reading it.
    #[must_use]
    pub fn refusing(mut self, refusal: Refusal) -> Self {
        if let Some(http1) = &mut self.http1 {
            http1.inspector.refuse(refusal);
        }
        self
    }

    /// Sets a deadline for the first `bytes` bytes, because Pingora would wait for ever for the HTTP/2 preface.
    #[must_use]
    pub fn awaiting(self, bytes: usize, timeout: Duration) -> Self {
        self.deadline.set(timeout);
        ClientStream { awaited: bytes, ..self }
    }

    /// Marks the stream as HTTP/2 with prior knowledge (RFC 9113 3.3).
    #[must_use]
    pub fn with_http2(self) -> Self {
        ClientStream { prior_knowledge: true, ..self }
    }

    /// Sets the minimum rate at which the client must read. `too_slow` counts the clients that read more slowly.
    #[must_use]
    pub fn with_min_write_rate(self, terms: min_rate::MinRate, too_slow: IntCounter) -> Self {
        ClientStream { sending: Some(WriteRate::new(terms, too_slow)), ..self }
    }

    /// Limits the number of requests over HTTP/2; 0 means no limit. After the GOAWAY, a client may be idle for
    /// `timeout`. Returns `None` over HTTP/1.
    ///
    /// # Errors
    /// Returns an error if Pingora cannot make a response header, which does not happen here.
    pub fn count(&mut self, requests: u32, timeout: Duration) -> pingora::Result<Option<Arc<RequestLimit>>> {
        let Some(http2) = &self.http2 else { return Ok(None) };
        let request_limit = Arc::new(RequestLimit::new(requests, timeout, http2.streams()));
        self.request_limit = Some(Arc::new(request_limit::digest(&request_limit)?));
        Ok(Some(request_limit))
    }

    /// Returns the write rate check; `None` for a WebSocket, which has its own timeouts.
    fn sending(&mut self) -> Option<&mut WriteRate> {
        self.sending.as_mut().filter(|_| !self.websocket.is_concerned())
    }

    /// Counts bytes that have arrived. Removes the first deadline when the last awaited byte has arrived.
    fn on_data(&mut self, bytes: usize) {
        self.awaited = self.awaited.saturating_sub(bytes);
        if self.awaited == 0 {
            self.deadline.lift();
        }
    }

    /// Reads frames of HTTP/2, or bytes that are not inspected.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(http2) = &mut self.http2 else { return Pin::new(&mut self.inner).poll_read(cx, buf) };
        // Until the awaited bytes are complete, the deadline is for them, and not for a head.
        let deadline = (self.awaited == 0).then_some(&self.deadline);
        http2.poll_read(&mut self.inner, cx, buf, deadline)
    }

    /// Passes the written part of `bufs` to the HTTP/2 inspection.
    fn on_write(&mut self, written: &Poll<io::Result<usize>>, bufs: &[io::IoSlice<'_>]) {
        let (Some(http2), Poll::Ready(Ok(written))) = (&mut self.http2, written) else { return };
        let mut left = *written;
        for buf in bufs {
            let part = &buf[..left.min(buf.len())];
            http2.on_write(part);
            left -= part.len();
        }
    }

    /// Returns true if the client may still send bytes that the gateway would drop.
    fn must_linger(&self) -> bool {
        self.http1.as_ref().is_some_and(|http1| http1.inspector.has_unread())
            || self.http2.as_ref().is_some_and(|http2| http2.ends_in_error())
    }

    /// Reads the bytes that Pingora may see. Does not check the deadline.
    fn poll_inside(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(http1) = &mut self.http1 else { return self.poll_frames(cx, buf) };
        if self.websocket.is_concerned() {
            let held = || http1.inspector.take_held();
            if let Some(end) = self.websocket.poll_tunnel(&mut self.inner, held, cx) {
                return end.map(Ok);
            }
        }
        let terms = &http1.terms;
        let read = http1.inspector.poll_read(&mut self.inner, cx, buf, || terms.now().size);
        let awaited = if read.is_pending() { http1.inspector.awaited() } else { Awaited::Other };
        http1.time(awaited, &self.deadline);
        read
    }

    /// Handles a deadline that has passed: ends an idle connection, refuses a late head, and fails any other read.
    fn poll_overdue(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let timed = self.http1.as_mut().map(|http1| std::mem::take(&mut http1.timed)).unwrap_or_default();
        match (timed, &mut self.http1) {
            (Awaited::Request, _) => {
                // Over TLS the gateway sends a close alert (RFC 8446 6.1) if the socket has room for it, but does not
                // wait for that. To Pingora, the client has closed the connection.
                let _ = Pin::new(&mut self.inner).poll_shutdown(cx);
                Poll::Ready(Ok(()))
            }
            (Awaited::RestOfHead, Some(http1)) => {
                self.deadline.lift();
                http1.inspector.refuse(LATE_HEAD);
                self.poll_inside(cx, buf)
            }
            _ => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Reads and drops bytes after the last write, until the deadline passes or `linger_budget` is used up.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(left) = self.linger_budget {
            let mut chunk = [const { MaybeUninit::uninit() }; 4096];
            let mut read = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut self.inner).poll_read(cx, &mut read) {
                Poll::Pending => return self.deadline.poll(cx),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => self.linger_budget = left.checked_sub(read.filled().len()),
            }
        }
        Poll::Ready(())
    }
}

/// Waits for the next request of a client over HTTP/1. While a connection is idle, only its stream is in memory, and not
/// yet Pingora's state of a request, which is much larger. Returns false if the client has left, or was idle for too
/// long.
pub async fn request_begins(stream: &mut Stream) -> bool {
    // A read into an empty buffer becomes ready with the head, and leaves it to Pingora's first read.
    let read = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut []))).await;
    let http1 = stream.as_any().downcast_ref::<ClientStream>().and_then(|stream| stream.http1.as_ref());
    read.is_ok() && http1.is_some_and(|http1| http1.inspector.has_begun())
}

/// Returns the reason why the request of `session` is refused; `None` if it is valid, and always over HTTP/2.
pub fn refusal(session: &Session) -> Option<Refusal> {
    stream_of(session)?.http1.as_ref()?.inspector.refusal()
}

/// Returns true if Pingora sees a substitute in place of the client's refused request.
pub fn is_substituted(session: &Session) -> bool {
    let http1 = stream_of(session).and_then(|stream| stream.http1.as_ref());
    http1.is_some_and(|http1| http1.inspector.is_substituted())
}

/// Returns true if the request of `session` was refused in the middle of its body.
pub fn is_broken_off(session: &Session) -> bool {
    refusal(session).is_some() && !is_substituted(session)
}

/// Marks the request of `session` as over, so that later bytes of its client belong to the next request.
pub fn request_over(session: &Session) {
    if let Some(http1) = stream_of(session).and_then(|stream| stream.http1.as_ref()) {
        http1.inspector.request_over();
    }
}

/// Returns true if the client of `session` has sent bytes after its request.
pub fn has_pipelined_data(session: &Session) -> bool {
    let http1 = stream_of(session).and_then(|stream| stream.http1.as_ref());
    http1.is_some_and(|http1| http1.inspector.has_pipelined_data())
}

/// Returns the client's side of a WebSocket; `None` over HTTP/2, where a WebSocket is not possible.
pub fn websocket(session: &Session) -> Option<&ClientSide> {
    stream_of(session).map(|stream| &stream.websocket)
}

/// Returns the total time that the gateway has waited for bytes from the client since its connection opened. Returns
/// `None` over HTTP/2, where the connection is shared with other requests.
pub fn waited(session: &Session) -> Option<Duration> {
    stream_of(session).map(GetTimingDigest::get_read_pending_time)
}

/// Returns the id of the client's own backend connections; `None` if it has none, and always over HTTP/2. If `begins`
/// is true, a client over HTTP/1 gets an id, which it keeps until its connection ends.
pub fn own_connections(session: &Session, begins: bool) -> Option<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let own = &stream_of(session)?.own_connections;
    if begins && own.load(Ordering::Relaxed) == 0 {
        own.store(NEXT.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
    Some(own.load(Ordering::Relaxed)).filter(|number| *number > 0)
}

/// Returns the stream of `session`; `None` over HTTP/2, where the connection is shared with other requests.
pub(super) fn stream_of(session: &Session) -> Option<&ClientStream> {
    session.as_downstream().stream().and_then(|stream| stream.as_ref().as_any().downcast_ref())
}

forward_stream_traits!(
    ClientStream,
    |stream| if stream.prior_knowledge { Some(ALPN::H2) } else { stream.inner.selected_alpn_proto() },
    |stream| stream.request_limit.clone().or_else(|| stream.inner.get_proxy_digest())
);

#[async_trait]
impl Peek for ClientStream {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.poll_inside(cx, buf);
        if read.is_ready() {
            if self.awaited > 0 {
                self.on_data(buf.filled().len().saturating_sub(before));
            }
            return read;
        }
        if self.unflushed && Pin::new(&mut self.inner).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        ready!(self.deadline.poll(cx));
        self.poll_overdue(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.on_write(&written, &[io::IoSlice::new(buf)]);
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
        if self.linger_budget.is_none() {
            // Over TLS the gateway sends a close alert first, and the client must read it in time.
            let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(match self.sending() {
                Some(sending) => sending.on_flush(cx, shut),
                None => shut,
            })?;
            if !self.must_linger() {
                return Poll::Ready(Ok(()));
            }
            self.deadline.set(LINGER);
            self.linger_budget = Some(if self.http2.is_some() { LINGER_BYTES_HTTP2 } else { LINGER_BYTES });
        }
        self.poll_linger(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.on_write(&written, bufs);
        match self.sending() {
            Some(sending) => sending.on_write(cx, written),
            None => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
