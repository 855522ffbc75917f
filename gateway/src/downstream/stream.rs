//! A client's stream, between its socket and Pingora: what is no valid request over HTTP/1 does not pass ([`http1`]),
//! over HTTP/2 neither ([`http2`]), reads can have a [`deadline`], what has been written goes out while Pingora waits
//! for a backend, and a WebSocket takes it over.
//!
//! Pingora leaves the parts of a body of known length in a buffer until that is full, or the body whole; a backend
//! that sends a little at a time would be silent for its client. But while it waits for the backend it also reads
//! from the client, to see whether it leaves, and by those reads the stream knows that nothing more is there to be
//! written for now.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{GetTimingDigest, Stream};
use pingora::proxy::Session;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use crate::downstream::bounds::{Bounds, HeadTerms};
pub use crate::downstream::http1::Refusal;
use crate::downstream::http1::{Awaited, Inspector};
use crate::downstream::http2::{Http2, StreamLimit};
use crate::downstream::read_deadline::Deadline;
use crate::downstream::request_limit::{self, RequestLimit};
use crate::downstream::write_rate::WriteRate;
use crate::reply::Problem;
use crate::util::min_rate;
use crate::websocket::ClientSide;

/// How long, and how much, is read of what nobody wants before the connection is closed. A close with something
/// unread would be a reset, and might take the answer with it (RFC 9112 9.6).
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What a client is told whose head takes too long.
pub const LATE_HEAD: Refusal = Refusal {
    problem: Problem::RequestTimeout,
    detail: "the header did not arrive whole in time (proxy.header_timeout_secs)",
};

/// The same over HTTP/2, where no upload can be under way that is larger than a connection's windows.
pub(super) const LINGER_BYTES_HTTP2: usize = 256 * 1024;

/// A client's stream.
#[derive(Debug)]
pub struct ClientStream {
    pub(super) inner: Stream,
    pub(super) deadline: Deadline,
    /// How it takes what it is sent; `None`: as it likes.
    sending: Option<WriteRate>,
    /// Whether something written may still be in the buffer.
    unflushed: bool,
    /// How many bytes must come before its first deadline.
    awaited: usize,
    /// Whether HTTP/2 is spoken on it, though nobody has agreed on that in TLS.
    pub(super) prior_knowledge: bool,
    /// The requests that it may still make, where HTTP/2 is spoken.
    pub(super) turns: Option<Arc<ProxyDigest>>,
    /// What looks at requests; `None` where HTTP/2 is spoken.
    http1: Option<Http1>,
    /// What watches heads where HTTP/2 is spoken.
    pub(super) http2: Option<Box<Http2>>,
    /// The client's side of a WebSocket, where one is asked for.
    websocket: ClientSide,
    /// How much may still be read to be dropped, once all has been said.
    linger_budget: Option<usize>,
    /// Number of the client, once it has connections to backends of its own; 0: it has none.
    own_connections: AtomicU64,
}

#[derive(Debug)]
struct Http1 {
    inspector: Inspector,
    terms: HeadTerms,
    /// What the deadline is for, where it is set here.
    timed: Awaited,
}

impl Http1 {
    /// Sets the deadline for what the client is waited for now; `deadline` is the stream's. Pingora has no timeout of its
    /// own for it: it knows one for idle connections, which would bound a head as well, and none for the first request.
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
    /// A stream without a deadline so far, on which nothing is looked at.
    pub fn new(inner: Stream) -> Self {
        ClientStream {
            inner,
            deadline: Deadline::never(),
            sending: None,
            unflushed: false,
            awaited: 0,
            prior_knowledge: false,
            turns: None,
            http1: None,
            http2: None,
            websocket: ClientSide::default(),
            linger_budget: None,
            own_connections: AtomicU64::new(0),
        }
    }

    /// One on which HTTP/1 is spoken, on these terms.
    #[must_use]
    pub fn with_http1(self, terms: HeadTerms) -> Self {
        let http1 = Http1 { inspector: Inspector::default(), terms, timed: Awaited::Other };
        ClientStream { http1: Some(http1), ..self }
    }

    /// One on which HTTP/2 is spoken, after its preface; a head must come whole in the time of these terms, its streams
    /// count among `streams`, and `malformed` counts requests that are none.
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

    /// One whose first request is refused, whatever it is.
    #[must_use]
    pub fn refusing(mut self, refusal: Refusal) -> Self {
        if let Some(http1) = &mut self.http1 {
            http1.inspector.refuse(refusal);
        }
        self
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
    pub fn with_min_write_rate(self, terms: min_rate::Terms, too_slow: IntCounter) -> Self {
        ClientStream { sending: Some(WriteRate::new(terms, too_slow)), ..self }
    }

    /// Counts its requests, of which there may be so many (0: any number), where HTTP/2 is spoken. A client that is told
    /// to go then, and stays, has `patience`.
    ///
    /// # Errors
    /// Where Pingora does not make a response, which it does.
    pub fn count(&mut self, requests: u32, patience: Duration) -> pingora::Result<Option<Arc<RequestLimit>>> {
        let Some(http2) = &self.http2 else { return Ok(None) };
        let turns = Arc::new(RequestLimit::new(requests, patience, http2.streams()));
        self.turns = Some(Arc::new(request_limit::digest(&turns)?));
        Ok(Some(turns))
    }

    /// How it takes what it is sent, where that counts: a WebSocket has terms of its own.
    fn sending(&mut self) -> Option<&mut WriteRate> {
        self.sending.as_mut().filter(|_| !self.websocket.is_concerned())
    }

    /// Takes note of bytes, of which some may have been awaited.
    fn came(&mut self, bytes: usize) {
        self.awaited = self.awaited.saturating_sub(bytes);
        if self.awaited == 0 {
            self.deadline.lift();
        }
    }

    /// Reads frames of HTTP/2, or whatever else is not looked at.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(http2) = &mut self.http2 else { return Pin::new(&mut self.inner).poll_read(cx, buf) };
        // Until those are there, the deadline is that of the first bytes.
        let deadline = (self.awaited == 0).then_some(&self.deadline);
        http2.poll_read(&mut self.inner, cx, buf, deadline)
    }

    /// So much of these has been written.
    fn on_write(&mut self, written: &Poll<io::Result<usize>>, bufs: &[io::IoSlice<'_>]) {
        let (Some(http2), Poll::Ready(Ok(written))) = (&mut self.http2, written) else { return };
        let mut left = *written;
        for buf in bufs {
            let part = &buf[..left.min(buf.len())];
            http2.on_write(part);
            left -= part.len();
        }
    }

    /// Returns true if the client may still send what nobody reads.
    fn must_linger(&self) -> bool {
        self.http1.as_ref().is_some_and(|http1| http1.inspector.has_unread())
            || self.http2.as_ref().is_some_and(|http2| http2.ends_in_error())
    }

    /// Reads what is for Pingora, however long that takes.
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

    /// The deadline has passed: ends an idle connection, has a late head answered, and fails any other read.
    fn poll_overdue(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let timed = self.http1.as_mut().map(|http1| std::mem::take(&mut http1.timed)).unwrap_or_default();
        match (timed, &mut self.http1) {
            (Awaited::Request, _) => {
                // Over TLS its end is announced (RFC 8446 6.1), if there is room for that; nobody waits for it. To
                // Pingora it is as if the client had closed it.
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

    /// All has been said: reads for a while what the client still sends.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

/// Why the request of `session` is refused, where what has come is none (over HTTP/1).
pub fn refusal(session: &Session) -> Option<Refusal> {
    stream_of(session)?.http1.as_ref()?.inspector.refusal()
}

/// Whether the request of `session` is not the one that has come, but stands for one that is refused.
pub fn is_substituted(session: &Session) -> bool {
    let http1 = stream_of(session).and_then(|stream| stream.http1.as_ref());
    http1.is_some_and(|http1| http1.inspector.is_substituted())
}

/// Whether the request of `session` was refused in the middle of its body.
pub fn is_broken_off(session: &Session) -> bool {
    refusal(session).is_some() && !is_substituted(session)
}

/// The request of `session` is over: what its client sends now belongs to the next one.
pub fn request_over(session: &Session) {
    if let Some(http1) = stream_of(session).and_then(|stream| stream.http1.as_ref()) {
        http1.inspector.request_over();
    }
}

/// Whether the client of `session` has sent something behind its request.
pub fn has_pipelined_data(session: &Session) -> bool {
    let http1 = stream_of(session).and_then(|stream| stream.http1.as_ref());
    http1.is_some_and(|http1| http1.inspector.has_pipelined_data())
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

/// Returns the number under which the client of `session` has connections to backends of its own; `None` where it has none,
/// or shares its connection with other requests (HTTP/2). `begins`: it has from now on, until its connection ends.
pub fn own_connections(session: &Session, begins: bool) -> Option<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let own = &stream_of(session)?.own_connections;
    if begins && own.load(Ordering::Relaxed) == 0 {
        own.store(NEXT.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
    Some(own.load(Ordering::Relaxed)).filter(|number| *number > 0)
}

/// The stream of `session`, where it has one of its own.
pub(super) fn stream_of(session: &Session) -> Option<&ClientStream> {
    session.as_downstream().stream().and_then(|stream| stream.as_ref().as_any().downcast_ref())
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
                self.came(buf.filled().len().saturating_sub(before));
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
            // Over TLS there is something to be said first, and it must be taken.
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
        self.poll_farewell(cx).map(Ok)
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
