//! Whether a request that failed may be tried again, when, and how many may.

use std::time::{Duration, Instant};

use http::Method;

use super::clock;
use super::window::Window;
use crate::config::Retry;

/// The time over which the budget holds.
const BUDGET_SECS: u64 = 10;

/// Retries that are allowed in that time however few requests there are.
const ALWAYS_ALLOWED: u64 = 10;

/// The compiled `[retry]` table.
pub struct RetryRules {
    attempts: u32,
    on_status: Vec<u16>,
    backoff_base: Duration,
    backoff_max: Duration,
    budget_percent: u64,
}

impl From<&Retry> for RetryRules {
    fn from(config: &Retry) -> Self {
        RetryRules {
            attempts: config.attempts.get(),
            on_status: config.on_status.clone(),
            backoff_base: config.backoff_base_ms.duration(),
            backoff_max: config.backoff_max_ms.duration(),
            budget_percent: config.budget_percent.get().into(),
        }
    }
}

impl RetryRules {
    /// Whether there may be another attempt after so many.
    pub fn allows_another(&self, attempts: u32) -> bool {
        attempts < self.attempts
    }

    /// Whether an answer with this status is worth another attempt.
    pub fn is_on_status(&self, status: u16) -> bool {
        self.on_status.contains(&status)
    }

    /// The pause before the next attempt, after so many: anything up to a bound that doubles. With the whole
    /// of it left to chance ("full jitter"), those who failed together do not come back together.
    pub fn backoff(&self, attempts: u32) -> Duration {
        let doubled = self.backoff_base.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        doubled.min(self.backoff_max).mul_f64(fastrand::f64())
    }
}

/// Keeps retries from multiplying an outage: they are only so many, beside the requests for the same tag.
pub struct RetryBudget(Window);

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget(Window::new())
    }
}

impl RetryBudget {
    /// Counts a request's first attempt.
    pub fn request(&self, at: Instant) {
        self.0.add(clock::millis(at), false);
    }

    /// Takes a retry from the budget, if there is one left.
    pub fn take(&self, rules: &RetryRules) -> bool {
        let now = clock::now();
        let (all, retries) = self.0.sum(now, BUDGET_SECS);
        let allowed = ALWAYS_ALLOWED.max((all - retries) * rules.budget_percent / 100);
        let is_left = retries < allowed;
        if is_left {
            self.0.add(now, true);
        }
        is_left
    }
}

/// What is known about a request that failed on a connection that was there.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Whether its body, as far as it was sent, can be sent again from the buffer.
    pub body_at_hand: bool,
    /// Whether the client has been sent anything of an answer.
    pub answered: bool,
}

/// Whether a request that may have reached a backend may be sent again (RFC 9110 9.2.2: only idempotent
/// requests may be repeated once they may have been acted upon).
pub fn may_resend(sent: Sent<'_>) -> bool {
    sent.method.is_idempotent() && sent.body_at_hand && !sent.answered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Percent;

    fn rules(budget_percent: i64) -> RetryRules {
        let budget_percent = Percent::try_from(budget_percent).unwrap();
        RetryRules::from(&Retry { budget_percent, on_status: vec![503], ..Retry::default() })
    }

    #[test]
    fn only_idempotent_requests_at_hand_and_unanswered() {
        for (method, body_at_hand, answered, may) in [
            (Method::GET, true, false, true),
            (Method::PUT, true, false, true),
            (Method::DELETE, true, false, true),
            (Method::POST, true, false, false),
            (Method::PATCH, true, false, false),
            (Method::GET, false, false, false),
            (Method::GET, true, true, false),
        ] {
            let sent = Sent { method: &method, body_at_hand, answered };
            assert_eq!(may_resend(sent), may, "{sent:?}");
        }
    }

    #[test]
    fn pauses_are_anything_up_to_a_bound_that_doubles() {
        let rules = rules(20);
        for (attempts, bound) in [(1, 25), (2, 50), (3, 100), (6, 800), (7, 1000), (40, 1000)] {
            let bound = Duration::from_millis(bound);
            let pauses: Vec<_> = (0..200).map(|_| rules.backoff(attempts)).collect();
            assert!(pauses.iter().all(|pause| *pause <= bound), "{attempts}: {pauses:?}");
            assert!(
                pauses.iter().any(|pause| *pause > bound / 2)
                    && pauses.iter().any(|pause| *pause < bound / 2)
            );
        }
    }

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let (budget, rules) = (RetryBudget::default(), rules(20));
        let taken = || (0..1000).filter(|_| budget.take(&rules)).count();
        assert_eq!(taken(), 10, "these are always allowed");
        (0..500).for_each(|_| budget.request(Instant::now()));
        assert_eq!(taken(), 90, "a fifth of 500, less those before");
        assert_eq!(taken(), 0);
    }

    #[test]
    fn a_table_says_how_often_and_on_which_statuses() {
        let rules = rules(20);
        assert!(rules.allows_another(2) && !rules.allows_another(3));
        assert!(rules.is_on_status(503) && !rules.is_on_status(500));
    }
}
