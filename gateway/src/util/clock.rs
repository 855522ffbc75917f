//! Time as a number of milliseconds, which can be stored in an atomic.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns `at` in milliseconds. The count starts at 1 near the start of the process, so 0 is never a time.
pub fn millis(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*START).as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// Returns the current time in milliseconds, on the scale of [`millis`].
pub fn now() -> u64 {
    millis(Instant::now())
}

/// Limiter of an action that is done at most once in a period.
#[derive(Debug, Default)]
pub struct Every(AtomicU64);

impl Every {
    /// Returns true if the action is due: it was last done at least `period` before `now` (milliseconds), or never.
    /// The action then counts as done at `now`.
    pub fn is_due(&self, now: u64, period: Duration) -> bool {
        let period = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        let next = |due: u64| (now >= due).then_some(now.saturating_add(period));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_is_due_once_per_period() {
        let every = Every::default();
        let minute = Duration::from_secs(60);
        let due = [5, 6, 60_004, 60_005, 60_006].map(|now| every.is_due(now, minute));
        assert_eq!(due, [true, false, false, true, false]);
    }
}
