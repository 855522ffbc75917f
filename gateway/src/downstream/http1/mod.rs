//! The inspector between a client's socket and Pingora, where HTTP/1 is spoken. Pingora parses before any of its phases
//! runs, leniently, and answers what it does not understand by itself and unseen. So nothing gets to it but the
//! bytes of one request, and only once its head is whole and strictly valid; the framing of its body is verified as
//! it passes, in Pingora's own buffer. What belongs to the next request waits here until this one is over.
//!
//! In place of a head that is refused, Pingora gets a harmless one, so that the refusal takes the way of all answers.

pub mod head;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use self::head::{Framing, Head, HeadReader};
use crate::policy::head_size::HeadSize;
use crate::reply::Problem;
use crate::util::http1::Fault;
use crate::util::http1::body::Body;
use crate::util::http1::chunked::Chunked;
use crate::util::http1::read_ahead::ReadAhead;

/// How much is read at a time where it does not go into Pingora's buffer.
const CHUNK: usize = 4 * 1024;

/// How much of later requests is held. A client that sends more has to wait.
const HELD: usize = 4 * 1024;

/// What Pingora gets in place of a head that is refused. Its method is what logs say where nothing is known.
const IN_PLACE: &[u8] = b"- / HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n";

/// The same for one of HEAD, whose answer has no content.
const IN_PLACE_OF_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n";

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub problem: Problem,
    /// The same, in words for whoever has sent it.
    pub detail: &'static str,
}

#[allow(non_snake_case, reason = "it stands where a constructor would")]
const fn BAD(detail: Fault) -> Refusal {
    Refusal { problem: Problem::BadRequest, detail }
}

/// What passes on a connection of HTTP/1.
#[derive(Debug, Default)]
pub(super) struct Inspector {
    state: State,
    head: HeadReader,
    /// What has been read and not been given.
    held: ReadAhead,
    /// How much of that may be given at once: it has been verified.
    verified: usize,
    refusal: Option<Refusal>,
    /// Whether the request is over. Set by whoever has the stream shared only.
    over: AtomicBool,
}

/// What a client is waited for, where nothing can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The first byte of a request: the connection is idle.
    Request,
    /// The rest of a head that has begun.
    RestOfHead,
    /// A body, or the end of the connection while its request is under way. Others time that.
    #[default]
    Other,
}

#[derive(Debug, Default)]
enum State {
    /// A head is awaited, or on its way.
    #[default]
    Head,
    /// A body is.
    Body(Body),
    /// The request has been read to its end.
    Read,
    /// Its head is refused: so much of what stands for it has been given.
    Refused(usize),
    /// Its body is.
    Broken,
}

impl State {
    /// Begins the request with this head, at the front of `bytes`: how many of them belong to it.
    fn begin(&mut self, head: Option<Head>, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        let Some(head) = head else { return Ok(None) };
        let mut body = body(head.framing);
        let (passed, is_whole) = body.pass(&bytes[head.length..]).map_err(BAD)?;
        *self = if is_whole { State::Read } else { State::Body(body) };
        Ok(Some(head.length + passed))
    }
}

/// The body that is framed so.
fn body(framing: Framing) -> Body {
    match framing {
        Framing::Length(length) => Body::Length(length),
        Framing::Chunked => Body::Chunked(Chunked::default()),
    }
}

impl Inspector {
    /// The request is over: what comes behind it is the next one's.
    pub(super) fn request_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Why the request is refused, if it is.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether what Pingora has is not what has come.
    pub(super) fn is_substituted(&self) -> bool {
        matches!(self.state, State::Refused(_))
    }

    /// Whether something is there that has not been given.
    pub(super) fn has_pipelined_data(&self) -> bool {
        !self.held.is_empty()
    }

    /// What the client is waited for. An empty line is no beginning of a request (RFC 9112 2.2).
    pub(super) fn awaited(&self) -> Awaited {
        if !matches!(self.state, State::Head) {
            Awaited::Other
        } else if self.held.bytes().iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            Awaited::Request
        } else {
            Awaited::RestOfHead
        }
    }

    /// Whether there is more of a request than has been read, or may be.
    pub(super) fn has_unread(&self) -> bool {
        !self.held.is_empty() || !matches!(self.state, State::Head | State::Read)
    }

    /// What is there behind the request, for whoever takes the connection over.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        self.held.take()
    }

    /// From now on Pingora gets something harmless to answer.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.state = State::Refused(0);
    }

    /// Reads from `client` what is for Pingora. `bounds` are those of a head.
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
                State::Head => match ready!(self.poll_head(client, cx, buf, &bounds))? {
                    Found::Head => {}
                    Found::InPlace | Found::End => return Poll::Ready(Ok(())),
                },
                State::Body(_) if !self.held.is_empty() => self.pass_held()?,
                State::Body(_) => return self.poll_body(client, cx, buf),
                State::Read if std::mem::take(self.over.get_mut()) => {
                    (self.state, self.head) = (State::Head, HeadReader::default());
                }
                State::Read => return self.poll_behind(client, cx),
                State::Refused(given) => {
                    give_in_place(&self.head, given, buf);
                    return Poll::Ready(Ok(()));
                }
                State::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
    }

    /// Ready once a head is whole, refused, or never to come. One that comes in one piece is left where it was read.
    fn poll_head(
        &mut self,
        client: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        bounds: &impl Fn() -> HeadSize,
    ) -> Poll<io::Result<Found>> {
        if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut *client).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(Found::End));
            }
            let found = self.head.read(read, &bounds()).and_then(|head| self.state.begin(head, read));
            match found {
                Ok(Some(whole)) => {
                    self.held.keep(&read[whole..]);
                    buf.set_filled(before + whole);
                    return Poll::Ready(Ok(Found::InPlace));
                }
                Ok(None) => self.held.keep(read),
                Err(refusal) => self.refuse(refusal),
            }
            buf.set_filled(before);
        }
        while matches!(self.state, State::Head) {
            let held = self.held.bytes();
            match self.head.read(held, &bounds()).and_then(|head| self.state.begin(head, held)) {
                Ok(Some(whole)) => self.verified = whole,
                Ok(None) => {
                    if ready!(poll_chunk(client, cx, &mut self.held))? == 0 {
                        // It left in the middle, and nobody is there to be told.
                        self.held.clear();
                        return Poll::Ready(Ok(Found::End));
                    }
                }
                Err(refusal) => self.refuse(refusal),
            }
        }
        Poll::Ready(Ok(Found::Head))
    }

    /// Looks at the body as far as it is held.
    fn pass_held(&mut self) -> io::Result<()> {
        let State::Body(body) = &mut self.state else { return Ok(()) };
        match body.pass(self.held.bytes()) {
            Ok((passed, is_whole)) => {
                self.verified = passed;
                if is_whole {
                    self.state = State::Read;
                }
                Ok(())
            }
            Err(fault) => Err(self.break_off(fault)),
        }
    }

    /// Reads the body where Pingora wants it, and verifies it there.
    fn poll_body(
        &mut self,
        client: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(client).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        let State::Body(body) = &mut self.state else { return Poll::Ready(Ok(())) };
        match body.pass(read) {
            Ok((passed, is_whole)) => {
                if is_whole {
                    self.held.keep(&read[passed..]);
                    buf.set_filled(before + passed);
                    self.state = State::Read;
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
        self.refusal = Some(BAD(fault));
        self.state = State::Broken;
        io::ErrorKind::InvalidData.into()
    }

    /// Ready only where the client has left. What it sends behind its request is held.
    fn poll_behind(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.bytes().len() < HELD {
            if ready!(poll_chunk(client, cx, &mut self.held))? == 0 {
                // With requests that wait it has not left: it has said all that it has to say.
                return if self.held.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        Poll::Pending
    }
}

/// What the wait for a head has come to.
enum Found {
    /// It was read to where Pingora wants it.
    InPlace,
    /// It is held, or refused.
    Head,
    /// Nothing comes any more.
    End,
}

/// Reads into `held`; how much.
fn poll_chunk(client: &mut Stream, cx: &mut Context<'_>, held: &mut ReadAhead) -> Poll<io::Result<usize>> {
    let mut chunk = [const { MaybeUninit::uninit() }; CHUNK];
    let mut read = ReadBuf::uninit(&mut chunk);
    ready!(Pin::new(client).poll_read(cx, &mut read))?;
    held.keep(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}

/// Gives more of what stands for a head that is refused; `given` is how much has been.
fn give_in_place(head: &HeadReader, given: &mut usize, buf: &mut ReadBuf<'_>) {
    let all = if head.is_head_request() { IN_PLACE_OF_HEAD } else { IN_PLACE };
    let part = all.len().saturating_sub(*given).min(buf.remaining());
    buf.put_slice(&all[*given..*given + part]);
    *given += part;
}
