//! The circuit breaker: a backend that fails requests gets none for a while, then one to try.
//!
//! ```text
//!            failures in a row, or a share of them
//!   closed ────────────────────────────────────────▶ open ◀──────────┐
//!     ▲                                                │ time is up   │ it fails:
//!     └─────────────────────────────────────────── half-open ────────┘ twice as long
//!            the one request that tries succeeds
//! ```
//!
//! While it is closed, a success costs one atomic addition, and nothing is locked.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::window::Window;
use crate::config::CircuitBreaker;

/// When a circuit opens and closes: the compiled `[circuit_breaker]` table.
#[derive(Clone, Debug)]
pub struct BreakerRules {
    enabled: bool,
    consecutive_failures: u32,
    failure_percent: u64,
    min_requests: u64,
    window_secs: u64,
    open: Duration,
    max_open: Duration,
}

impl From<&CircuitBreaker> for BreakerRules {
    fn from(config: &CircuitBreaker) -> Self {
        BreakerRules {
            enabled: config.enabled,
            consecutive_failures: config.consecutive_failures.get(),
            failure_percent: config.failure_percent.get().into(),
            min_requests: config.min_requests.get().into(),
            window_secs: config.window_secs.get(),
            open: config.open_secs.duration(),
            max_open: config.max_open_secs.duration(),
        }
    }
}

impl BreakerRules {
    /// Whether there is a circuit that could open.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}

/// Whether a backend gets requests, as far as those before them tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// It does.
    Closed,
    /// One request tries whether it answers again; the others go elsewhere.
    HalfOpen,
    /// It gets none, until its time is up and one tries.
    Open,
}

/// How long a request may try alone, in milliseconds. One that takes longer (a slow upload) must not keep a
/// backend away that is well again: then another one may try as well.
const ALONE_FOR: u64 = 5000;

/// What a change of state is to be told with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// It has opened, for so long.
    Opened { open_for: Duration, why: Why },
    /// The one request that tried has succeeded.
    Closed,
}

/// Why a circuit opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Why {
    /// So many failures in a row.
    InARow(u32),
    /// So many failures among so many requests.
    Share(u64, u64),
    /// The request that tried has failed.
    TriedInVain,
}

/// How a request on a backend went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, and not with 5xx.
    Success,
    /// It was not, or with 5xx.
    Failure,
}

/// A backend's circuit.
pub(super) struct Breaker {
    /// Failures since the last success.
    in_a_row: AtomicU32,
    window: Window,
    /// Until when it is open, in milliseconds; 0: it is closed.
    open_until: AtomicU64,
    /// Since when a request tries, in milliseconds; 0: none does.
    trying_since: AtomicU64,
    /// How often it has opened without closing in between.
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

    /// Whether a request may begin; `now` is only asked for where the circuit is not closed.
    pub(super) fn lets_through(&self, now: impl FnOnce() -> u64) -> bool {
        match self.open_until.load(Ordering::Relaxed) {
            0 => true,
            until => {
                let now = now();
                now >= until && !is_trying(self.trying_since.load(Ordering::Relaxed), now)
            }
        }
    }

    /// Begins a request: `Some(true)` where it is the one that tries, `None` where it must go elsewhere.
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

    /// Lets a request try at once, where it is open: there is news from elsewhere.
    pub(super) fn try_now(&self, now: u64) {
        let sooner = |until| (until > now).then_some(now);
        // Where it is closed, or due already, there is nothing to do.
        let _ = self.open_until.fetch_update(Ordering::AcqRel, Ordering::Relaxed, sooner);
    }

    /// The request that tried has ended without telling anything.
    pub(super) fn leave(&self) {
        self.trying_since.store(0, Ordering::Release);
    }

    /// Takes in how a request went; `tried`: it was the one that tried.
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
            // What was under way when it opened is no news.
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

    /// Opens it, unless somebody else has; `until` is what `open_until` was.
    fn open(&self, why: Why, until: u64, rules: &BreakerRules, now: u64) -> Option<Change> {
        let openings = self.openings.load(Ordering::Relaxed);
        let open_for = rules.open.saturating_mul(1 << openings.min(16)).min(rules.max_open);
        let next = now + u64::try_from(open_for.as_millis()).unwrap_or(u64::MAX / 2);
        self.open_until.compare_exchange(until, next, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.openings.store(openings.saturating_add(1), Ordering::Relaxed);
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

    /// How long it stays open, in milliseconds.
    pub(super) fn open_for(&self, now: u64) -> Option<u64> {
        self.open_until.load(Ordering::Relaxed).checked_sub(now).filter(|left| *left > 0)
    }
}

/// Whether a request that has tried since then tries alone.
fn is_trying(since: u64, now: u64) -> bool {
    since != 0 && now < since + ALONE_FOR
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// Three in a row, or half of at least ten; open for ten seconds, then twenty, then twenty-five.
    fn rules() -> BreakerRules {
        let of = |n| NonZeroU32::new(n).unwrap();
        let config =
            CircuitBreaker { consecutive_failures: of(3), min_requests: of(10), ..Default::default() };
        BreakerRules { max_open: Duration::from_secs(25), ..BreakerRules::from(&config) }
    }

    fn record(breaker: &Breaker, outcome: Outcome, now: u64) -> Option<Change> {
        breaker.record(outcome, false, &rules(), now)
    }

    fn opened(secs: u64, why: Why) -> Option<Change> {
        Some(Change::Opened { open_for: Duration::from_secs(secs), why })
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_breaks_the_row() {
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
    fn a_share_of_failures_opens_it_where_there_were_enough_requests() {
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
    fn one_request_tries_and_decides() {
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

        // One that takes too long does not keep others from trying, nor does one that ends without an outcome.
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
    fn what_is_switched_off_never_opens() {
        let breaker = Breaker::new();
        let off = BreakerRules { enabled: false, ..rules() };
        for _ in 0..100 {
            assert_eq!(breaker.record(Outcome::Failure, false, &off, 1000), None);
        }
        assert!(breaker.lets_through(|| 1000));
    }

    #[test]
    fn of_many_threads_one_tells_that_it_opened() {
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
