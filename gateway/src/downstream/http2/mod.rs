//! HTTP/2 connections. Frames from a client are inspected before the `h2` crate reads them (`inspector`). The outcome
//! of each stream is counted (`ledger`). A head must arrive in time. A loop of the gateway serves each connection
//! (`connection`), and can end it with a GOAWAY.

pub mod connection;
mod frame;
pub mod hpack;
pub mod inspector;
pub mod ledger;
mod options;
mod request_head;
mod sent;
pub(super) mod streams;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pingora::protocols::Stream;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, ReadBuf};

use self::inspector::FrameInspector;
pub use self::ledger::Abuse;
use self::ledger::{Ledger, Verdict};
use self::sent::Sent;
pub use self::streams::{OpenStreams, StreamLimit};
use crate::downstream::bounds::HeadTerms;
use crate::downstream::deadline::Deadline;

/// State of an HTTP/2 connection that its stream needs.
#[derive(Debug)]
pub(super) struct Http2 {
    inspector: FrameInspector,
    sent: Sent,
    ledger: Ledger,
    verdict: Arc<Verdict>,
    streams: Arc<OpenStreams>,
    terms: HeadTerms,
    /// True while the stream's deadline limits the time of a head; false while it limits something else or is unset.
    is_timed: bool,
    /// Counter of malformed requests.
    malformed: IntCounter,
}

impl Http2 {
    /// Creates the state of a connection whose preface has `preface` bytes. A head must arrive in the time of `terms`.
    pub(super) fn new(terms: HeadTerms, preface: usize, streams: StreamLimit, malformed: IntCounter) -> Self {
        let (verdict, streams) = (Arc::<Verdict>::default(), OpenStreams::new(streams));
        Http2 {
            inspector: FrameInspector::new(preface),
            sent: Sent::new(),
            ledger: Ledger::new(verdict.clone(), streams.clone()),
            verdict,
            streams,
            terms,
            is_timed: false,
            malformed,
        }
    }

    /// Returns the verdict, which tells the accept loop when the connection must end.
    fn verdict(&self) -> Arc<Verdict> {
        self.verdict.clone()
    }

    /// Returns the count of open streams.
    pub(super) fn streams(&self) -> Arc<OpenStreams> {
        self.streams.clone()
    }

    /// Returns true if an error of the client ends the connection. The client may still send bytes after that.
    pub(super) fn ends_in_error(&self) -> bool {
        self.must_end() || self.sent.has_ended_in_error()
    }

    /// Returns true if the gateway has decided to end the connection, even if the client still sends.
    fn must_end(&self) -> bool {
        self.verdict.is_set()
    }

    /// Reads bytes for h2. `deadline` is used for heads; it is `None` while it limits the first bytes instead.
    pub(super) fn poll_read(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        deadline: Option<&Deadline>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if self.inspector.give(buf) {
                return Poll::Ready(Ok(()));
            }
            if self.must_end() {
                // The verdict has woken the accept loop, which ends the connection.
                return Poll::Pending;
            }
            if self.inspector.must_wait() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.inspector.has_unread() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut *inner).poll_read(cx, buf))?;
                if buf.filled().len() == before {
                    return Poll::Ready(Ok(()));
                }
                let looked_at = self.inspector.on_data(&buf.filled()[before..], &mut self.ledger);
                buf.set_filled(before);
                self.note(looked_at);
            } else {
                let looked_at = self.inspector.resume(&mut self.ledger);
                self.note(looked_at);
            }
            if let Some(deadline) = deadline {
                self.time_head(deadline);
            }
        }
    }

    fn note(&mut self, looked_at: Result<(), (h2::Reason, Abuse)>) {
        if let Err((reason, abuse)) = looked_at {
            self.verdict.set(reason, abuse);
        }
        self.malformed.inc_by(self.inspector.take_malformed().into());
    }

    /// Sets a deadline for a head that has begun, because h2 would wait for ever for the rest.
    fn time_head(&mut self, deadline: &Deadline) {
        let is_within_head = self.inspector.is_within_head();
        let has_ended = self.inspector.take_ended_head();
        if self.is_timed && (has_ended || !is_within_head) {
            self.is_timed = false;
            deadline.lift();
        }
        if is_within_head && !self.is_timed {
            self.is_timed = true;
            deadline.set(self.terms.now().time);
        }
    }

    /// Inspects bytes that have been written to the client.
    pub(super) fn on_write(&mut self, bytes: &[u8]) {
        self.sent.on_write(bytes, &mut self.ledger);
    }
}
