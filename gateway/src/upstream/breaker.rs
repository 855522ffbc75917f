//! Circuit breaker: a backend that fails requests gets none for a set time, then a single request as a trial.
//!
//! ```text
//!            failures in a row, or a share of them
//!   closed ────────────────────────────────────────▶ open ◀──────────┐
//!     ▲                                                │ time is up   │ it fails:
//!     └─────────────────────────────────────────── half-open ────────┘ twice as long
//!            the one request that tries succeeds
//! ```
//!
//! While the circuit is closed, a success costs one atomic update, and nothing is locked.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::window::Window;
use crate::config::CircuitBreaker;
use crate::util::backoff::Backoff;

/// Rules for opening and closing a circuit: the compiled `[circuit_breaker]` table.
#[derive(Clone, Debug)]
pub struct BreakerRules {
    enabled: bool,
    consecutive_failures: u32,
    failure_percent: u64,
    min_requests: u64,
    window_secs: u64,
    open_for: Backoff,
}

impl From<&CircuitBreaker> for BreakerRules {
    fn from(config: &CircuitBreaker) -> Self {
        BreakerRules {
            enabled: config.enabled,
            consecutive_failures: config.consecutive_failures.get(),
            failure_percent: config.failure_percent.get().into(),
            min_requests: config.min_requests.get().into(),
            window_secs: config.window_secs.get(),
            open_for: Backoff { first: config.open_secs.duration(), most: config.max_open_secs.duration() },
        }
    }
}

impl BreakerRules {
    /// Returns true if circuits may open; false if the circuit breaker is disabled.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}

/// State of a backend's circuit, which follows the outcomes of earlier requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// The backend gets requests.
    Closed,
    /// A single request is the trial that decides whether the circuit closes. Other requests get other backends.
    HalfOpen,
    /// The backend gets no requests. When the waiting time is over, one request becomes the trial.
    Open,
}

/// Time in milliseconds for which a trial excludes other requests. A trial that takes longer (a slow upload) must not
/// keep other requests from a backend that works again. After this time, another request may become a trial too.
const ALONE_FOR: u64 = 5000;

/// Change of a circuit's state, for the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// The circuit has opened for the time `open_for`.
    Opened { open_for: Duration, why: Why },
    /// The trial has succeeded.
    Closed,
}

/// Reason why a circuit opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Why {
    /// Enough consecutive requests have failed: their number.
    InARow(u32),
    /// Enough requests have failed within the window: the number of failures, and the number of all requests.
    Share(u64, u64),
    /// The trial has failed.
    TriedInVain,
}

/// Outcome of a request on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend answered, and not with 5xx.
    Success,
    /// The backend did not answer, or answered with 5xx.
    Failure,
}

/// Circuit of one backend.
pub(super) struct Breaker {
    /// Number of failures since the last success.
    in_a_row: AtomicU32,
    window: Window,
    /// End of the open state in milliseconds; 0 if the circuit is closed.
    open_until: AtomicU64,
    /// Start of the trial in milliseconds; 0 if no trial is under way.
    trying_since: AtomicU64,
    /// Number of times that the circuit has opened without closing in between.
    openings: AtomicU32,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Breaker {
            in_a_row: AtomicU32::new(0),
            window: Window::new(),
            open_until: AtomicU64::new(0),
            trying_since: AtomicU64::new(0),
            openings: AtomicU32::new(0),
        }
    }

    /// Returns true if a request may be sent to the backend. `now` is called only if the circuit is not closed.
    pub(super) fn lets_through(&self, now: impl FnOnce() -> u64) -> bool {
        match self.open_until.load(Ordering::Relaxed) {
            0 => true,
            until => {
                let now = now();
                now >= until && !is_trying(self.trying_since.load(Ordering::Relaxed), now)
            }
        }
    }

    /// Begins a request. Returns `Some(true)` if it is the trial, `Some(false)` if the circuit is closed, else `None`.
    pub(super) fn enter(&self, now: impl FnOnce() -> u64) -> Option<bool> {
        let until = self.open_until.load(Ordering::Relaxed);
        if until == 0 {
            return Some(false);
        }
        let now = now();
        let before = self.trying_since.load(Ordering::Relaxed);
        let taken = now >= until
            && !is_trying(before, now)
            && self.trying_since.compare_exchange(before, now, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        taken.then_some(true)
    }

    /// Ends the waiting time of an open circuit, because a health check has found that the backend works again.
    pub(super) fn try_now(&self, now: u64) {
        let sooner = |until| (until > now).then_some(now);
        // Nothing changes if the circuit is closed, or if its waiting time is over already.
        let _ = self.open_until.fetch_update(Ordering::AcqRel, Ordering::Relaxed, sooner);
    }

    /// Ends a trial that has no outcome.
    pub(super) fn leave(&self) {
        self.trying_since.store(0, Ordering::Release);
    }

    /// Records the outcome of a request; returns the change of state, if any. `tried` is true for the trial.
    pub(super) fn record(
        &self,
        outcome: Outcome,
        tried: bool,
        rules: &BreakerRules,
        now: u64,
    ) -> Option<Change> {
        if tried {
            let change = self.tried(outcome, rules, now);
            self.leave();
            return Some(change);
        }
        if !rules.enabled || self.open_until.load(Ordering::Relaxed) != 0 {
            // A request that began before the circuit opened tells nothing new.
            return None;
        }
        self.window.add(now, outcome == Outcome::Failure);
        if outcome == Outcome::Success {
            if self.in_a_row.load(Ordering::Relaxed) != 0 {
                self.in_a_row.store(0, Ordering::Relaxed);
            }
            return None;
        }
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let (requests, failures) = self.window.sum(now, rules.window_secs);
        let why = if in_a_row >= rules.consecutive_failures {
            Why::InARow(in_a_row)
        } else if requests >= rules.min_requests && failures * 100 >= requests * rules.failure_percent {
            Why::Share(failures, requests)
        } else {
            return None;
        };
        self.open(why, 0, rules, now)
    }

    fn tried(&self, outcome: Outcome, rules: &BreakerRules, now: u64) -> Change {
        let until = self.open_until.load(Ordering::Relaxed);
        if outcome == Outcome::Failure
            && let Some(change) = self.open(Why::TriedInVain, until, rules, now)
        {
            return change;
        }
        self.in_a_row.store(0, Ordering::Relaxed);
        self.window.clear();
        self.openings.store(0, Ordering::Relaxed);
        self.open_until.store(0, Ordering::Release);
        Change::Closed
    }

    /// Opens the circuit, unless another thread has done so. `until` is the expected value of `open_until`.
    fn open(&self, why: Why, until: u64, rules: &BreakerRules, now: u64) -> Option<Change> {
        let openings = self.openings.load(Ordering::Relaxed).saturating_add(1);
        let open_for = rules.open_for.delay(openings);
        let next = now + u64::try_from(open_for.as_millis()).unwrap_or(u64::MAX / 2);
        self.open_until.compare_exchange(until, next, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.openings.store(openings, Ordering::Relaxed);
        self.in_a_row.store(0, Ordering::Relaxed);
        Some(Change::Opened { open_for, why })
    }

    pub(super) fn state(&self, now: impl FnOnce() -> u64) -> CircuitState {
        if self.open_until.load(Ordering::Relaxed) == 0 {
            return CircuitState::Closed;
        }
        match is_trying(self.trying_since.load(Ordering::Relaxed), now()) {
            true => CircuitState::HalfOpen,
            false => CircuitState::Open,
        }
    }

    /// Returns how long the circuit stays open, in milliseconds; `None` if it is not open.
    pub(super) fn open_for(&self, now: u64) -> Option<u64> {
        self.open_until.load(Ordering::Relaxed).checked_sub(now).filter(|left| *left > 0)
    }
}

/// Returns true if a trial that began at `since` still excludes other requests.
fn is_trying(since: u64, now: u64) -> bool {
    since != 0 && now < since + ALONE_FOR
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// Returns rules that open the circuit after three consecutive failures, or if half of at least ten requests fail.
    /// It opens for 10, then 20, then 25 seconds.
    fn rules() -> BreakerRules {
        let of = |n| NonZeroU32::new(n).unwrap();
        let config =
            CircuitBreaker { consecutive_failures: of(3), min_requests: of(10), ..Default::default() };
        let open_for = Backoff { first: Duration::from_secs(10), most: Duration::from_secs(25) };
        BreakerRules { open_for, ..BreakerRules::from(&config) }
    }

    fn record(breaker: &Breaker, outcome: Outcome, now: u64) -> Option<Change> {
        breaker.record(outcome, false, &rules(), now)
    }

    fn opened(secs: u64, why: Why) -> Option<Change> {
        Some(Change::Opened { open_for: Duration::from_secs(secs), why })
    }

    #[test]
    fn consecutive_failures_open_circuit_unless_a_success_comes() {
        use Outcome::{Failure, Success};
        let breaker = Breaker::new();
        for outcome in [Failure, Failure, Success, Failure, Failure] {
            assert_eq!(record(&breaker, outcome, 1000), None);
        }
        assert!(breaker.lets_through(|| 1000));
        assert_eq!(record(&breaker, Failure, 1000), opened(10, Why::InARow(3)));
        assert_eq!(record(&breaker, Failure, 1000), None, "it is told once");
        assert!(!breaker.lets_through(|| 10_999));
        assert_eq!(breaker.state(|| 10_999), CircuitState::Open);
        assert_eq!(breaker.open_for(1000), Some(10_000));
        breaker.try_now(5000);
        assert_eq!((breaker.enter(|| 5000), breaker.enter(|| 5000)), (Some(true), None));
    }

    #[test]
    fn share_of_failures_opens_circuit_after_min_requests() {
        let breaker = Breaker::new();
        let mut changes = Vec::new();
        for i in 0..10 {
            let outcome = if i % 2 == 1 { Outcome::Failure } else { Outcome::Success };
            changes.push(record(&breaker, outcome, 5000));
        }
        assert_eq!(changes[..9], [None; 9]);
        assert_eq!(changes[9], opened(10, Why::Share(5, 10)));

        let breaker = Breaker::new();
        for i in 0..30 {
            let outcome = if i % 2 == 1 { Outcome::Failure } else { Outcome::Success };
            assert_eq!(record(&breaker, outcome, i * 5000), None, "spread over time, it is no outage");
        }
    }

    #[test]
    fn trial_request_decides_whether_circuit_closes() {
        let breaker = Breaker::new();
        (0..2).for_each(|_| assert_eq!(record(&breaker, Outcome::Failure, 1000), None));
        assert!(record(&breaker, Outcome::Failure, 1000).is_some());
        assert_eq!(breaker.enter(|| 10_999), None);
        assert_eq!(breaker.enter(|| 11_000), Some(true));
        assert_eq!(breaker.enter(|| 11_000), None, "one, not two");
        assert!(!breaker.lets_through(|| 11_000));
        assert_eq!(breaker.state(|| 11_000), CircuitState::HalfOpen);
        let tried = |outcome, now| breaker.record(outcome, true, &rules(), now);
        assert_eq!(tried(Outcome::Failure, 11_500), opened(20, Why::TriedInVain));
        assert_eq!(breaker.enter(|| 31_499), None);

        // Neither a trial that takes too long nor one that ends without an outcome prevents another trial.
        assert_eq!(breaker.enter(|| 25_000 + 1_500), None);
        assert_eq!(breaker.enter(|| 31_500), Some(true));
        assert_eq!(breaker.enter(|| 36_499), None);
        assert_eq!(breaker.enter(|| 36_500), Some(true));
        breaker.leave();
        assert_eq!(breaker.enter(|| 31_500), Some(true));
        assert_eq!(tried(Outcome::Failure, 31_500), opened(25, Why::TriedInVain), "never longer");

        assert_eq!(breaker.enter(|| 56_500), Some(true));
        assert_eq!(tried(Outcome::Success, 56_500), Some(Change::Closed));
        assert_eq!(breaker.enter(|| 56_500), Some(false));
        (0..2).for_each(|_| assert_eq!(record(&breaker, Outcome::Failure, 56_500), None));
        assert_eq!(record(&breaker, Outcome::Failure, 56_500), opened(10, Why::InARow(3)), "from the start");
    }

    #[test]
    fn disabled_breaker_never_opens() {
        let breaker = Breaker::new();
        let off = BreakerRules { enabled: false, ..rules() };
        for _ in 0..100 {
            assert_eq!(breaker.record(Outcome::Failure, false, &off, 1000), None);
        }
        assert!(breaker.lets_through(|| 1000));
    }

    #[test]
    fn circuit_opened_by_many_threads_is_reported_once() {
        let breaker = Breaker::new();
        let told: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..100).filter_map(|_| record(&breaker, Outcome::Failure, 1000)).count())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(told, 1);
    }
}
