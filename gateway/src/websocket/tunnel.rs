//! Tunnel that forwards bytes in both directions between a client and a backend. It ends when both sides have
//! finished, when no byte has passed for the idle timeout, or when the connection to one side has broken. Each
//! direction continues while the other waits. A direction holds only the bytes that it could not write at once, so a
//! side that does not read makes the other side stop sending. An idle tunnel holds no buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::time::Instant;

use super::direction::{Direction, Failed, Follow};
use super::frames::{Frames, GOING_AWAY};
use super::{TunnelOptions, Upgrade};
use crate::util::gauge::GaugeGuard;
use crate::util::timers::LazyTimer;
use crate::websocket::drain_timer::DrainTimer;

/// Maximum time without a byte after the client has finished sending.
const LINGER: Duration = Duration::from_secs(60);

/// Time for a client to close after its backend has closed. Until then, bytes from the client are read and dropped: a
/// close with unread bytes would be a reset, and the client might lose the last bytes of the backend.
const FAREWELL: Duration = Duration::from_secs(1);

/// Reason why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides had finished.
    Closed,
    /// No byte passed for the idle timeout.
    Idle,
    /// The connection to the client broke.
    ClientLost,
    /// The connection to the backend broke.
    BackendLost,
}

impl CloseReason {
    /// Returns the error in one word; `None` if both sides had finished.
    pub fn error(self) -> Option<&'static str> {
        match self {
            CloseReason::Closed => None,
            CloseReason::Idle => Some("idle_timeout"),
            CloseReason::ClientLost => Some("client_closed"),
            CloseReason::BackendLost => Some("connection_terminated"),
        }
    }
}

/// Side that sends the bytes of a direction.
#[derive(Clone, Copy, Debug)]
enum Sender {
    Client,
    Backend,
}

/// Open tunnel, which is part of the client's stream.
#[derive(Debug)]
pub struct Tunnel {
    upgrade: Arc<Upgrade>,
    backend: Stream,
    up: Direction,
    down: Direction,
    frames: Frames,
    /// True if the client has been sent a Close by the gateway. Later bytes of the backend are dropped.
    close_sent: bool,
    /// Timer for that Close. The timer starts when the process stops.
    going: DrainTimer,
    last_passed: Instant,
    idle: LazyTimer,
    _counted: GaugeGuard,
}

impl Tunnel {
    /// Creates the tunnel for `upgrade`. Returns `None` if the backend has not agreed. `held` returns the bytes that
    /// the client has already sent.
    pub(super) fn begin(upgrade: &Arc<Upgrade>, held: impl FnOnce() -> Vec<u8>) -> Option<Box<Self>> {
        let (backend, early) = upgrade.take()?;
        let TunnelOptions { grace_period, stopping, active, .. } = upgrade.options.clone();
        Some(Box::new(Tunnel {
            upgrade: upgrade.clone(),
            backend,
            up: Direction::beginning_with(held()),
            down: Direction::beginning_with(early),
            frames: Frames::default(),
            close_sent: false,
            going: DrainTimer::new(stopping, grace_period),
            last_passed: Instant::now(),
            idle: LazyTimer::default(),
            _counted: GaugeGuard::new(active),
        }))
    }

    /// Forwards bytes, and becomes ready when the tunnel is over. The caller must not call it after that.
    pub(super) fn poll(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let ending = ready!(self.poll_ending(client, cx));
        Poll::Ready(*self.upgrade.close_reason.get_or_init(|| ending))
    }

    fn poll_ending(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let before = (self.up.passed, self.down.passed, self.up.state, self.down.state);
        let mut follow = if self.down.is_ending() { Follow::Drop } else { Follow::Nothing };
        if let Err(failed) = self.up.poll(client, &mut self.backend, cx, &mut follow) {
            let is_late = self.down.is_ending();
            return Poll::Ready(if is_late { CloseReason::Closed } else { lost(failed, Sender::Client) });
        }
        if !self.close_sent && self.going.poll(cx).is_ready() {
            self.send_close();
        }
        let mut follow = if self.close_sent { Follow::Drop } else { Follow::Frames(&mut self.frames) };
        if let Err(failed) = self.down.poll(&mut self.backend, client, cx, &mut follow) {
            return Poll::Ready(lost(failed, Sender::Backend));
        }
        // The Close is tried again, because the bytes from the backend may have completed a frame only now.
        if !self.close_sent && self.going.is_over() && self.send_close() {
            cx.waker().wake_by_ref();
        }
        if before != (self.up.passed, self.down.passed, self.up.state, self.down.state) {
            self.last_passed = Instant::now();
            self.upgrade.received.store(self.up.passed, Ordering::Relaxed);
            self.upgrade.sent.store(self.down.passed, Ordering::Relaxed);
        }
        if self.up.is_over() && self.down.is_over() {
            return Poll::Ready(CloseReason::Closed);
        }
        self.poll_idle(cx)
            .map(|()| if self.down.is_ending() { CloseReason::Closed } else { CloseReason::Idle })
    }

    /// Adds a Close to the bytes for the client, and returns true; false if no frame can begin now. The client will
    /// answer the Close, and the backend will answer the client.
    fn send_close(&mut self) -> bool {
        let can = self.frames.is_between() && self.down.pending.is_empty() && !self.down.is_ending();
        if can {
            self.down.pending.extend(GOING_AWAY);
            self.close_sent = true;
        }
        can
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.upgrade.options.idle;
        let allowed = match (self.down.is_ending(), self.up.is_ending()) {
            (true, _) => idle.min(FAREWELL),
            (false, true) => idle.min(LINGER),
            (false, false) => idle,
        };
        self.idle.poll_until(self.last_passed + allowed, cx)
    }
}

fn lost(failed: Failed, sender: Sender) -> CloseReason {
    match (failed, sender) {
        (Failed::Reading, Sender::Client) | (Failed::Writing, Sender::Backend) => CloseReason::ClientLost,
        (Failed::Reading, Sender::Backend) | (Failed::Writing, Sender::Client) => CloseReason::BackendLost,
    }
}
