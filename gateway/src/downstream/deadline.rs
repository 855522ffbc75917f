//! Deadline of a client's stream: a point in time after which its reads fail, with a timer that runs on from one request
//! to the next.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Value of `at` without a deadline.
const NEVER: u64 = u64::MAX;

/// Value of `at` after a read has failed at the deadline.
const PASSED: u64 = u64::MAX - 1;

/// Deadline after which reads from a client fail.
#[derive(Debug)]
pub(super) struct Deadline {
    /// Time from which `at` is counted.
    opened: Instant,
    /// Milliseconds after `opened`, [`NEVER`] or [`PASSED`]. The value is atomic because Pingora gives access to the
    /// stream by shared reference only. No other task writes it.
    at: AtomicU64,
    /// Timer that is created when a read first waits. It runs on from one request to the next: setting a timer for
    /// each request would cost more than a wake-up without effect.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Creates a deadline that is not set.
    pub(super) fn never() -> Self {
        Deadline { opened: Instant::now(), at: AtomicU64::new(NEVER), timer: None }
    }

    /// Sets the deadline to `left` from now.
    pub(super) fn set(&self, left: Duration) {
        let at = u64::try_from((self.opened.elapsed() + left).as_millis()).unwrap_or(NEVER);
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

    /// Becomes ready when the deadline has passed. Stays pending without a deadline.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.instant() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                self.at.store(PASSED, Ordering::Relaxed);
                return Poll::Ready(());
            }
            // The timer was set for an earlier request.
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
