//! Inspector of HTTP/1 requests, between a client's socket and Pingora. Pingora parses a request before any of its
//! phases runs. Its parser is lenient, and answers an invalid request without telling the gateway. Therefore Pingora
//! receives the bytes of one request only, and only after the head is complete and strictly valid. The framing of the
//! body is verified in Pingora's own buffer, as the body passes. Bytes of the next request are held until the current
//! request is over.
//!
//! In place of a refused head, Pingora receives a harmless substitute. So the refusal is sent like any other response.

pub mod head;
mod refusal;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use self::head::{Framing, Head, HeadReader};
pub use self::refusal::Refusal;
use crate::policy::head_size::HeadSize;
use crate::util::http1::Fault;
use crate::util::http1::body::Body;
use crate::util::http1::chunked::Chunked;
use crate::util::http1::read_ahead::ReadAhead;

/// Size of a read into the inspector's own buffer.
const CHUNK: usize = 4 * 1024;

/// Number of held bytes of later requests at which the gateway stops reading. The client then has to wait.
const HELD: usize = 4 * 1024;

/// Substitute that Pingora receives for a refused head. Its method `-` is what logs show for an unknown method.
const IN_PLACE: &[u8] = b"- / HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n";

/// Substitute for a refused HEAD request, because the response to HEAD has no content.
const IN_PLACE_OF_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n";

/// Inspector of an HTTP/1 connection.
#[derive(Debug, Default)]
pub(super) struct RequestInspector {
    state: RequestState,
    head: HeadReader,
    /// Bytes that have been read and not yet given to Pingora.
    held: ReadAhead,
    /// Number of verified bytes at the front of `held`, which Pingora gets with its next reads.
    verified: usize,
    refusal: Option<Refusal>,
    /// True from the end of a request until the next one begins. It is atomic because the session that sets it has only
    /// a shared reference to the stream.
    over: AtomicBool,
}

/// Input that the gateway waits for while nothing can be read from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Awaited {
    /// First byte of a request. The connection is idle.
    Request,
    /// Rest of a head that has begun.
    RestOfHead,
    /// Body, or the end of the connection during a request. Other code limits the time for these.
    #[default]
    Other,
}

#[derive(Debug, Default)]
enum RequestState {
    /// The head is awaited or arriving.
    #[default]
    Head,
    /// The body is awaited or arriving.
    Body(Body),
    /// The request has been read completely.
    Read,
    /// The head is refused. The value is the number of the substitute's bytes that Pingora has received.
    Refused(usize),
    /// The request is refused in the middle of its body, so reads fail.
    Broken,
}

impl RequestState {
    /// Starts the request whose head is at the front of `bytes`. Returns the number of bytes that belong to the
    /// request; `None` if the head is not complete.
    fn begin(&mut self, head: Option<Head>, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        let Some(head) = head else { return Ok(None) };
        let mut body = body(head.framing);
        let (passed, is_whole) = body.pass(&bytes[head.length..]).map_err(Refusal::bad)?;
        *self = if is_whole { RequestState::Read } else { RequestState::Body(body) };
        Ok(Some(head.length + passed))
    }
}

/// Returns a reader for a body with this framing.
fn body(framing: Framing) -> Body {
    match framing {
        Framing::Length(length) => Body::Length(length),
        Framing::Chunked => Body::Chunked(Chunked::default()),
    }
}

impl RequestInspector {
    /// Marks the request as over, so that later bytes belong to the next request.
    pub(super) fn request_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Returns the reason why the request is refused; `None` if it is not.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Returns true if Pingora has a substitute in place of the client's request.
    pub(super) fn is_substituted(&self) -> bool {
        matches!(self.state, RequestState::Refused(_))
    }

    /// Returns true if Pingora can read a request: its head has arrived and is valid, or it has a substitute.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, RequestState::Head)
    }

    /// Returns true if the gateway holds bytes that Pingora has not received.
    pub(super) fn has_pipelined_data(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns the input that the gateway waits for. An empty line does not begin a request (RFC 9112 2.2).
    pub(super) fn awaited(&self) -> Awaited {
        if !matches!(self.state, RequestState::Head) {
            Awaited::Other
        } else if self.held.bytes().iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            Awaited::Request
        } else {
            Awaited::RestOfHead
        }
    }

    /// Returns true if the client may have sent, or may still send, bytes that Pingora has not read.
    pub(super) fn has_unread(&self) -> bool {
        !self.held.is_empty() || !matches!(self.state, RequestState::Head | RequestState::Read)
    }

    /// Takes the bytes after the request, for a tunnel that takes over the connection.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        self.held.take()
    }

    /// Refuses the request. From now on Pingora reads a harmless substitute.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.state = RequestState::Refused(0);
    }

    /// Reads from `client` the bytes that Pingora may see. `bounds` returns the limits of a head.
    pub(super) fn poll_read(
        &mut self,
        client: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        bounds: impl Fn() -> HeadSize,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.verified > 0 {
                self.verified -= self.held.give(self.verified, buf);
                return Poll::Ready(Ok(()));
            }
            match &mut self.state {
                RequestState::Head => {
                    if !ready!(self.poll_head(client, cx, &bounds))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                RequestState::Body(_) if !self.held.is_empty() => self.pass_held()?,
                RequestState::Body(_) => return self.poll_body(client, cx, buf),
                RequestState::Read if std::mem::take(self.over.get_mut()) => {
                    (self.state, self.head) = (RequestState::Head, HeadReader::default());
                }
                RequestState::Read => return self.poll_behind(client, cx),
                RequestState::Refused(given) => {
                    give_in_place(&self.head, given, buf);
                    return Poll::Ready(Ok(()));
                }
                RequestState::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
    }

    /// Becomes ready when a head is complete or refused. Returns false if the client has left before that.
    fn poll_head(
        &mut self,
        client: &mut Stream,
        cx: &mut Context<'_>,
        bounds: &impl Fn() -> HeadSize,
    ) -> Poll<io::Result<bool>> {
        loop {
            if !self.held.is_empty() {
                let held = self.held.bytes();
                match self.head.read(held, &bounds()).and_then(|head| self.state.begin(head, held)) {
                    Ok(Some(whole)) => self.verified = whole,
                    Ok(None) => {}
                    Err(refusal) => self.refuse(refusal),
                }
            }
            if self.has_begun() {
                return Poll::Ready(Ok(true));
            }
            if ready!(poll_chunk(client, cx, &mut self.held))? == 0 {
                // A client that left in the middle of its head cannot receive a response.
                self.held.clear();
                return Poll::Ready(Ok(false));
            }
        }
    }

    /// Verifies the held bytes as a part of the body.
    fn pass_held(&mut self) -> io::Result<()> {
        let RequestState::Body(body) = &mut self.state else { return Ok(()) };
        match body.pass(self.held.bytes()) {
            Ok((passed, is_whole)) => {
                self.verified = passed;
                if is_whole {
                    self.state = RequestState::Read;
                }
                Ok(())
            }
            Err(fault) => Err(self.break_off(fault)),
        }
    }

    /// Reads the body into Pingora's buffer, and verifies it there.
    fn poll_body(
        &mut self,
        client: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(client).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        let RequestState::Body(body) = &mut self.state else { return Poll::Ready(Ok(())) };
        match body.pass(read) {
            Ok((passed, is_whole)) => {
                if is_whole {
                    self.held.keep(&read[passed..]);
                    buf.set_filled(before + passed);
                    self.state = RequestState::Read;
                }
                Poll::Ready(Ok(()))
            }
            Err(fault) => {
                buf.set_filled(before);
                Poll::Ready(Err(self.break_off(fault)))
            }
        }
    }

    fn break_off(&mut self, fault: Fault) -> io::Error {
        self.refusal = Some(Refusal::bad(fault));
        self.state = RequestState::Broken;
        io::ErrorKind::InvalidData.into()
    }

    /// Becomes ready only when the client has left. Holds the bytes that the client sends after its request.
    fn poll_behind(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.bytes().len() < HELD {
            if ready!(poll_chunk(client, cx, &mut self.held))? == 0 {
                // A client with held requests has not left: it has only finished sending.
                return if self.held.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        Poll::Pending
    }
}

/// Reads from `client` into `held`. Returns the number of bytes; 0 at the end of the connection.
fn poll_chunk(client: &mut Stream, cx: &mut Context<'_>, held: &mut ReadAhead) -> Poll<io::Result<usize>> {
    let mut chunk = [const { MaybeUninit::uninit() }; CHUNK];
    let mut read = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(client).poll_read(cx, &mut read))?;
    held.keep(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

/// Gives Pingora the next bytes of the substitute for a refused head. `given` is the number of bytes given so far.
fn give_in_place(head: &HeadReader, given: &mut usize, buf: &mut ReadBuf<'_>) {
    let all = if head.is_head_request() { IN_PLACE_OF_HEAD } else { IN_PLACE };
    let part = all.len().saturating_sub(*given).min(buf.remaining());
    buf.put_slice(&all[*given..*given + part]);
    *given += part;
}
