//! Deadline of a client's stream: a point in time after which reads from the client fail. One timer serves all
//! deadlines of a stream, one after another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::util::timers::LazyTimer;

/// Value of `at` while no deadline is set.
const NEVER: u64 = u64::MAX;

/// Value of `at` after a read has failed at the deadline.
const PASSED: u64 = u64::MAX - 1;

/// Deadline of a client's stream, which may be unset. Reads from the client fail after the deadline.
#[derive(Debug)]
pub(super) struct Deadline {
    /// Point in time at which `at` is 0.
    opened: Instant,
    /// Milliseconds after `opened`, [`NEVER`] or [`PASSED`]. The value is atomic because Pingora gives access to the
    /// stream by shared reference only. No other task writes it.
    at: AtomicU64,
    timer: LazyTimer,
}

impl Deadline {
    /// Creates a deadline that is not set.
    pub(super) fn never() -> Self {
        Deadline { opened: Instant::now(), at: AtomicU64::new(NEVER), timer: LazyTimer::default() }
    }

    /// Sets the deadline to `left` from now.
    pub(super) fn set(&self, left: Duration) {
        self.set_after(Instant::now(), left);
    }

    /// Sets the deadline to `left` after `now`.
    pub(super) fn set_after(&self, now: Instant, left: Duration) {
        let at = now.duration_since(self.opened) + left;
        let at = u64::try_from(at.as_millis()).unwrap_or(NEVER);
        self.at.store(at, Ordering::Relaxed);
    }

    /// Removes the deadline.
    pub(super) fn lift(&self) {
        self.at.store(NEVER, Ordering::Relaxed);
    }

    /// Returns true if a read has failed at the deadline.
    pub(super) fn has_passed(&self) -> bool {
        self.at.load(Ordering::Relaxed) == PASSED
    }

    fn instant(&self) -> Option<Instant> {
        match self.at.load(Ordering::Relaxed) {
            NEVER | PASSED => None,
            millis => Some(self.opened + Duration::from_millis(millis)),
        }
    }

    /// Becomes ready when the deadline has passed. Stays pending if no deadline is set.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.instant() else { return Poll::Pending };
        ready!(self.timer.poll_until(deadline, cx));
        self.at.store(PASSED, Ordering::Relaxed);
        Poll::Ready(())
    }
}
