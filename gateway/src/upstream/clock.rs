//! Time as a number, so that it fits into an atomic.

use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds from a moment near the process's start, which is 1: 0 never is a time.
pub(super) fn millis(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*START).as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// The same, now.
pub(super) fn now() -> u64 {
    millis(Instant::now())
}
