//! Circuit breaker: a backend that fails requests gets none for a while, then a single request as a trial.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::Policy;

/// Circuit of one backend.
pub struct Breaker(Mutex<State>);

enum State {
    /// Requests pass. The number counts the failures in a row so far.
    Closed(u32),
    /// No request passes before this time. The first one after it is the trial.
    Open(Instant),
    /// The trial is under way, and it alone decides.
    HalfOpen,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker(Mutex::new(State::Closed(0)))
    }
}

impl Breaker {
    /// Begins a request. Returns `Some(true)` for the trial, `Some(false)` if the circuit is closed, else `None`.
    pub fn enter(&self, now: Instant) -> Option<bool> {
        let mut state = self.0.lock();
        match *state {
            State::Closed(_) => return Some(false),
            State::Open(until) if now >= until => *state = State::HalfOpen,
            State::Open(_) | State::HalfOpen => return None,
        }
        Some(true)
    }

    /// Records the outcome of a request. While the circuit is not closed, only the trial changes it.
    pub fn record(&self, success: bool, is_trial: bool, policy: &Policy, now: Instant) {
        let mut state = self.0.lock();
        let most = policy.circuit_breaker_failures;
        *state = match *state {
            State::Open(_) | State::HalfOpen if !is_trial => return,
            _ if success => State::Closed(0),
            State::Closed(failures) if failures + 1 < most => State::Closed(failures + 1),
            _ => State::Open(now + Duration::from_secs(policy.circuit_breaker_open_secs.into())),
        };
    }

    /// Ends a trial that has no outcome. The next request is the trial.
    pub fn leave(&self, now: Instant) {
        *self.0.lock() = State::Open(now);
    }
}
