//! Bytes both ways between a client and a backend, until both have said all, nothing passes for too long, or one
//! of them is gone. Each direction goes on while the other waits, and holds no more than it could not get rid
//! of at once: whoever does not read has the other side stop sending. A tunnel on which nothing passes holds no
//! buffer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use prometheus::IntGauge;
use tokio::time::{Instant, Sleep, sleep_until};

use super::direction::{Direction, Failed, Follow};
use super::frames::{Frames, GOING_AWAY};
use super::{Terms, Upgrade};
use crate::websocket::drain_timer::DrainTimer;

/// How long a backend may be silent once its client has said all.
const LINGER: Duration = Duration::from_secs(60);

/// How long a client has to close once its backend has. What it still sends is read and dropped until then: a close
/// with something unread would be a reset, and might take the backend's last words with it.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides had said all.
    Closed,
    /// Nothing passed for too long.
    Idle,
    /// The connection to the client broke.
    ClientLost,
    /// The connection to the backend broke.
    BackendLost,
}

impl CloseReason {
    /// What went wrong, in one word.
    pub fn error(self) -> Option<&'static str> {
        match self {
            CloseReason::Closed => None,
            CloseReason::Idle => Some("idle_timeout"),
            CloseReason::ClientLost => Some("client_closed"),
            CloseReason::BackendLost => Some("connection_terminated"),
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
    close_sent: bool,
    /// When it will be; runs once the process stops.
    going: DrainTimer,
    last_passed: Instant,
    idle: Pin<Box<Sleep>>,
    _counted: Counted,
}

impl Tunnel {
    /// A tunnel to where `upgrade` has led; `None` as long as the backend has not agreed. `held` is what the client
    /// has sent by then.
    pub(super) fn begin(upgrade: &Arc<Upgrade>, held: impl FnOnce() -> Vec<u8>) -> Option<Box<Self>> {
        let (backend, early) = upgrade.take()?;
        let Terms { idle, patience, stopping, active } = upgrade.terms.clone();
        let now = Instant::now();
        Some(Box::new(Tunnel {
            upgrade: upgrade.clone(),
            backend,
            up: Direction::beginning_with(held()),
            down: Direction::beginning_with(early),
            frames: Frames::default(),
            close_sent: false,
            going: DrainTimer::new(stopping, patience),
            last_passed: now,
            idle: Box::pin(sleep_until(now + idle)),
            _counted: Counted::begin(active),
        }))
    }

    /// Passes on what there is. Ready when it is over; then nothing more may be asked of it.
    pub(super) fn poll(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let ending = ready!(self.poll_ending(client, cx));
        self.upgrade.state.lock().passed.ending = Some(ending);
        Poll::Ready(ending)
    }

    fn poll_ending(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let before = (self.up.passed, self.down.passed, self.up.state, self.down.state);
        let mut follow = if self.down.is_ending() { Follow::Drop } else { Follow::Nothing };
        if let Err(failed) = self.up.poll(client, &mut self.backend, cx, &mut follow) {
            let is_late = self.down.is_ending();
            return Poll::Ready(if is_late { CloseReason::Closed } else { lost(failed, Sender::Client) });
        }
        if !self.close_sent && self.going.poll(cx).is_ready() {
            self.tell_to_go();
        }
        let mut follow = if self.close_sent { Follow::Drop } else { Follow::Frames(&mut self.frames) };
        if let Err(failed) = self.down.poll(&mut self.backend, client, cx, &mut follow) {
            return Poll::Ready(lost(failed, Sender::Backend));
        }
        // It may have come to the end of a frame only now.
        if !self.close_sent && self.going.is_over() && self.tell_to_go() {
            cx.waker().wake_by_ref();
        }
        if before != (self.up.passed, self.down.passed, self.up.state, self.down.state) {
            self.last_passed = Instant::now();
            let mut state = self.upgrade.state.lock();
            (state.passed.received, state.passed.sent) = (self.up.passed, self.down.passed);
        }
        if self.up.is_over() && self.down.is_over() {
            return Poll::Ready(CloseReason::Closed);
        }
        self.poll_idle(cx)
            .map(|()| if self.down.is_ending() { CloseReason::Closed } else { CloseReason::Idle })
    }

    /// Puts a Close between two frames for the client, which will answer it, and then be answered by the backend.
    fn tell_to_go(&mut self) -> bool {
        let can = self.frames.is_between() && self.down.pending.is_empty() && !self.down.is_ending();
        if can {
            self.down.pending.extend(GOING_AWAY);
            self.close_sent = true;
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

fn lost(failed: Failed, sender: Sender) -> CloseReason {
    match (failed, sender) {
        (Failed::Reading, Sender::Client) | (Failed::Writing, Sender::Backend) => CloseReason::ClientLost,
        (Failed::Reading, Sender::Backend) | (Failed::Writing, Sender::Client) => CloseReason::BackendLost,
    }
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
