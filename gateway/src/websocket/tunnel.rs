//! Bytes both ways between a client and a backend, until both have said all, nothing passes for too long, or one
//! of them is gone. Each direction goes on while the other waits, and holds no more than it could not get rid
//! of at once: whoever does not read has the other side stop sending. A tunnel on which nothing passes holds no
//! buffer.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::frames::{Frames, GOING_AWAY};
use super::going::Going;
use super::{Terms, Upgrade};

/// How much is read at a time. As much as Pingora would hold for what it reads from a backend: so that is not used.
const CHUNK: usize = 64 * 1024;

/// How long a backend may be silent once its client has said all.
const LINGER: Duration = Duration::from_secs(60);

/// How long a client has to close once its backend has. What it still sends is read and dropped until then: a close
/// with something unread would be a reset, and might take the backend's last words with it.
const FAREWELL: Duration = Duration::from_secs(1);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides had said all.
    Closed,
    /// Nothing passed for too long.
    Idle,
    /// The connection to the client broke.
    ClientLost,
    /// The connection to the backend broke.
    BackendLost,
}

impl Ending {
    /// What went wrong, in one word.
    pub fn error(self) -> Option<&'static str> {
        match self {
            Ending::Closed => None,
            Ending::Idle => Some("idle_timeout"),
            Ending::ClientLost => Some("client_closed"),
            Ending::BackendLost => Some("connection_terminated"),
        }
    }
}

/// Who sends in a direction.
#[derive(Clone, Copy, Debug)]
enum Sender {
    Client,
    Backend,
}

/// A tunnel, seen from the client's stream.
#[derive(Debug)]
pub struct Tunnel {
    upgrade: Arc<Upgrade>,
    backend: Stream,
    up: Direction,
    down: Direction,
    frames: Frames,
    /// Whether the client has been told to go; what the backend sends from then on is dropped.
    told_to_go: bool,
    /// When it will be; runs once the process stops.
    going: Going,
    last_passed: Instant,
    idle: Pin<Box<Sleep>>,
    _counted: Counted,
}

impl Tunnel {
    /// A tunnel to where `upgrade` has led; `None` as long as the backend has not agreed. Taken from `held` is what
    /// the client has sent by then.
    pub(super) fn begin(upgrade: &Arc<Upgrade>, held: &mut Vec<u8>) -> Option<Box<Self>> {
        let (backend, early) = upgrade.take()?;
        let Terms { idle, patience, stopping, active } = upgrade.terms.clone();
        let now = Instant::now();
        Some(Box::new(Tunnel {
            upgrade: upgrade.clone(),
            backend,
            up: Direction { pending: std::mem::take(held), ..Direction::default() },
            down: Direction { pending: early, ..Direction::default() },
            frames: Frames::default(),
            told_to_go: false,
            going: Going::new(stopping, patience),
            last_passed: now,
            idle: Box::pin(sleep_until(now + idle)),
            _counted: Counted::begin(active),
        }))
    }

    /// Passes on what there is. Ready when it is over; then nothing more may be asked of it.
    pub(super) fn poll(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<Ending> {
        let ending = ready!(self.poll_ending(client, cx));
        self.upgrade.state.lock().passed.ending = Some(ending);
        Poll::Ready(ending)
    }

    fn poll_ending(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<Ending> {
        let before = (self.up.passed, self.down.passed, self.up.state, self.down.state);
        let mut follow = if self.down.is_ending() { Follow::Drop } else { Follow::Nothing };
        if let Err(failed) = self.up.poll(client, &mut self.backend, cx, &mut follow) {
            let is_late = self.down.is_ending();
            return Poll::Ready(if is_late { Ending::Closed } else { lost(failed, Sender::Client) });
        }
        if !self.told_to_go && self.going.poll(cx).is_ready() {
            self.tell_to_go();
        }
        let mut follow = if self.told_to_go { Follow::Drop } else { Follow::Frames(&mut self.frames) };
        if let Err(failed) = self.down.poll(&mut self.backend, client, cx, &mut follow) {
            return Poll::Ready(lost(failed, Sender::Backend));
        }
        // It may have come to the end of a frame only now.
        if !self.told_to_go && self.going.is_over() && self.tell_to_go() {
            cx.waker().wake_by_ref();
        }
        if before != (self.up.passed, self.down.passed, self.up.state, self.down.state) {
            self.last_passed = Instant::now();
            let mut state = self.upgrade.state.lock();
            (state.passed.received, state.passed.sent) = (self.up.passed, self.down.passed);
        }
        if self.up.is_over() && self.down.is_over() {
            return Poll::Ready(Ending::Closed);
        }
        self.poll_idle(cx).map(|()| if self.down.is_ending() { Ending::Closed } else { Ending::Idle })
    }

    /// Puts a Close between two frames for the client, which will answer it, and then be answered by the backend.
    fn tell_to_go(&mut self) -> bool {
        let can = self.frames.is_between() && self.down.pending.is_empty() && !self.down.is_ending();
        if can {
            self.down.pending.extend(GOING_AWAY);
            self.told_to_go = true;
        }
        can
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.upgrade.terms.idle;
        let allowed = match (self.down.is_ending(), self.up.is_ending()) {
            (true, _) => idle.min(FAREWELL),
            (false, true) => idle.min(LINGER),
            (false, false) => idle,
        };
        let until = self.last_passed + allowed;
        if self.idle.deadline() > until {
            self.idle.as_mut().reset(until);
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            self.idle.as_mut().reset(until);
        }
        Poll::Pending
    }
}

fn lost(failed: Failed, sender: Sender) -> Ending {
    match (failed, sender) {
        (Failed::Reading, Sender::Client) | (Failed::Writing, Sender::Backend) => Ending::ClientLost,
        (Failed::Reading, Sender::Backend) | (Failed::Writing, Sender::Client) => Ending::BackendLost,
    }
}

/// What becomes of bytes besides being passed on.
enum Follow<'f> {
    Nothing,
    Frames(&'f mut Frames),
    /// They are not passed on.
    Drop,
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DirectionState {
    #[default]
    Open,
    /// The sender has said all.
    Ending,
    /// And the other side knows.
    Over,
}

#[derive(Debug, Default)]
struct Direction {
    /// What has been read and could not be written yet.
    pending: Vec<u8>,
    /// How much of that has been written.
    written: usize,
    unflushed: bool,
    state: DirectionState,
    /// Bytes that have been written.
    passed: u64,
}

/// What failed in a direction.
#[derive(Clone, Copy, Debug)]
enum Failed {
    Reading,
    Writing,
}

impl Direction {
    fn is_ending(&self) -> bool {
        self.state != DirectionState::Open
    }

    fn is_over(&self) -> bool {
        self.state == DirectionState::Over
    }

    /// Passes on what can be, until one of the streams has to be waited for.
    fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        cx: &mut Context<'_>,
        follow: &mut Follow<'_>,
    ) -> Result<(), Failed> {
        loop {
            if self.poll_pending(to, cx, follow)?.is_pending() {
                return Ok(());
            }
            match self.state {
                DirectionState::Open => {
                    if self.poll_chunk(from, to, cx, follow)?.is_pending() {
                        // Nothing more for now: what is in a buffer goes.
                        return self.poll_flush(to, cx).map(|_| ());
                    }
                }
                DirectionState::Ending => match Pin::new(&mut *to).poll_shutdown(cx) {
                    // One that is gone need not be told.
                    Poll::Ready(_) => self.state = DirectionState::Over,
                    Poll::Pending => return Ok(()),
                },
                DirectionState::Over => return Ok(()),
            }
        }
    }

    fn poll_pending(
        &mut self,
        to: &mut Stream,
        cx: &mut Context<'_>,
        follow: &mut Follow<'_>,
    ) -> Result<Poll<()>, Failed> {
        while self.written < self.pending.len() {
            match write(to, cx, &self.pending[self.written..])? {
                Poll::Ready(written) => {
                    let part = self.written..self.written + written;
                    if let Follow::Frames(frames) = follow {
                        frames.follow(&self.pending[part]);
                    }
                    self.count(written);
                    self.written += written;
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        // Not kept for the next time: most sockets are idle most of the time.
        (self.pending, self.written) = (Vec::new(), 0);
        Ok(Poll::Ready(()))
    }

    /// Reads once, and writes as much of that as will go.
    fn poll_chunk(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        cx: &mut Context<'_>,
        follow: &mut Follow<'_>,
    ) -> Result<Poll<()>, Failed> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(from).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if is_close(&error) => {}
                Poll::Ready(Err(_)) => return Err(Failed::Reading),
                Poll::Pending => return Ok(Poll::Pending),
            }
            let mut chunk = &*read.filled();
            if chunk.is_empty() {
                self.state = DirectionState::Ending;
                return Ok(Poll::Ready(()));
            }
            if matches!(follow, Follow::Drop) {
                return Ok(Poll::Ready(()));
            }
            while !chunk.is_empty() {
                match write(to, cx, chunk)? {
                    Poll::Ready(written) => {
                        let (gone, left) = chunk.split_at(written);
                        if let Follow::Frames(frames) = follow {
                            frames.follow(gone);
                        }
                        self.count(written);
                        chunk = left;
                    }
                    Poll::Pending => {
                        self.pending = chunk.to_vec();
                        break;
                    }
                }
            }
            Ok(Poll::Ready(()))
        })
    }

    fn poll_flush(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Result<Poll<()>, Failed> {
        if self.unflushed {
            match Pin::new(to).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(Failed::Writing),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }

    fn count(&mut self, written: usize) {
        self.passed += written as u64;
        self.unflushed = true;
    }
}

fn write(to: &mut Stream, cx: &mut Context<'_>, bytes: &[u8]) -> Result<Poll<usize>, Failed> {
    match Pin::new(to).poll_write(cx, bytes) {
        Poll::Ready(Ok(written @ 1..)) => Ok(Poll::Ready(written)),
        Poll::Ready(_) => Err(Failed::Writing),
        Poll::Pending => Ok(Poll::Pending),
    }
}

/// Whether it is what TLS makes of a connection that was closed without `close_notify`. Whether a message was cut
/// off shows in the frames.
fn is_close(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// Counts a tunnel as open until it is dropped.
#[derive(Debug)]
struct Counted(IntGauge);

impl Counted {
    fn begin(gauge: IntGauge) -> Self {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
