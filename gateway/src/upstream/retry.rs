//! Retries: the conditions under which a failed request may be sent again, the pause before that, and the budget that
//! limits the number of retries.

use std::time::{Duration, Instant};

use http::Method;

use super::window::Window;
use crate::config::Retry;
use crate::util::backoff::Backoff;
use crate::util::clock;

/// Length of the budget's window, in seconds.
const BUDGET_SECS: u64 = 10;

/// Number of retries that are allowed in a window, however few requests there are.
const ALWAYS_ALLOWED: u64 = 10;

/// The compiled `[retry]` table.
pub struct RetryRules {
    attempts: u32,
    on_status: Vec<u16>,
    backoff: Backoff,
    budget_percent: u64,
}

impl From<&Retry> for RetryRules {
    fn from(config: &Retry) -> Self {
        RetryRules {
            attempts: config.attempts.get(),
            on_status: config.on_status.clone(),
            backoff: Backoff {
                first: config.backoff_base_ms.duration(),
                most: config.backoff_max_ms.duration(),
            },
            budget_percent: config.budget_percent.get().into(),
        }
    }
}

impl RetryRules {
    /// Returns true if another attempt is allowed after `attempts` attempts.
    pub fn allows_another(&self, attempts: u32) -> bool {
        attempts < self.attempts
    }

    /// Returns true if a response with this status may be retried.
    pub fn is_on_status(&self, status: u16) -> bool {
        self.on_status.contains(&status)
    }

    /// Returns the pause after `attempts` attempts: a random time up to a bound that doubles with each attempt.
    pub fn backoff(&self, attempts: u32) -> Duration {
        self.backoff.with_jitter(attempts, 1.0)
    }
}

/// Budget of retries, which keeps retries from multiplying an outage. The number of retries is limited to a share of
/// the requests for the same tag.
pub struct RetryBudget(Window);

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget(Window::new())
    }
}

impl RetryBudget {
    /// Counts the first attempt of a request.
    pub fn request(&self, at: Instant) {
        self.0.add(clock::millis(at), false);
    }

    /// Takes a retry from the budget. Returns false if the budget has none left.
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

/// Properties of a request that failed on an open connection.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Method of the request.
    pub method: &'a Method,
    /// True if the part of the body that was sent is still in the buffer, and can be sent again.
    pub body_at_hand: bool,
    /// True if the client has been sent a part of a response.
    pub answered: bool,
}

/// Returns true if a request that may have reached a backend may be sent again. Only idempotent requests may be
/// repeated once a backend may have acted upon them (RFC 9110 9.2.2).
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
    fn only_idempotent_buffered_unanswered_request_is_resent() {
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
    fn backoff_is_random_up_to_a_doubling_bound() {
        let rules = rules(20);
        for (attempts, bound) in [(1, 25), (2, 50), (6, 800), (7, 1000), (40, 1000)] {
            let longest = (0..200).map(|_| rules.backoff(attempts).as_millis()).max();
            assert!(longest.is_some_and(|longest| (bound / 2..=bound).contains(&longest)), "{longest:?}");
        }
    }

    #[test]
    fn retry_budget_is_a_share_of_requests() {
        let (budget, rules) = (RetryBudget::default(), rules(20));
        let taken = || (0..1000).filter(|_| budget.take(&rules)).count();
        assert_eq!(taken(), 10, "these are always allowed");
        (0..500).for_each(|_| budget.request(Instant::now()));
        assert_eq!(taken(), 90, "a fifth of 500, less those before");
        assert_eq!(taken(), 0);
    }

    #[test]
    fn retry_rules_limit_attempts_and_statuses() {
        let rules = rules(20);
        assert!(rules.allows_another(2) && !rules.allows_another(3));
        assert!(rules.is_on_status(503) && !rules.is_on_status(500));
    }
}
