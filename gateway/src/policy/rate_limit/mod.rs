//! `[rate_limit]`: limits how many requests a client may send in a window of time, which opens with the
//! client's first request. If several windows apply, a request needs room in each window, and is counted in all
//! of them or in none. Requests without room get 429 until the window has passed.
//!
//! Counting is exact, per client, in bounded memory: see [`Counters`]. If several gateways share a window, a
//! [`Store`] counts, and each gateway counts by itself only while the store is not available. Every response
//! tells the client its remaining requests (the `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers-10).

mod client;
mod counters;
mod shared_check;
mod store;
mod window;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

pub use client::RateLimitSubject;
pub use counters::{Count, Counters};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::ResponseHeader;
pub use shared_check::{CheckOutcome, Waiting};
pub use store::{BadStore, Roots, Store, StoreKeeper, StoreSettings};
pub use window::Window;

use self::store::Ask;
use self::window::reset_secs;
use super::Verdict;
use crate::config::{CounterStore, MAX_RATE_LIMITS, RateLimit, RateLimitKey, RateLimitScope, RateLimits};
use crate::reply::{Problem, Reply};
use crate::telemetry::Refusals;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Compiled `[rate_limit]` of a route.
pub struct RateLimiter {
    /// Windows that are checked before authentication, so that they also limit the checks of passwords.
    pub on_arrival: Option<Windows>,
    /// Windows whose key is a claim, which are checked only after authentication. A request that they refuse
    /// has already been counted in the windows on arrival.
    pub by_claim: Option<Windows>,
}

/// Windows that are checked together.
pub struct Windows {
    /// Windows that this gateway counts, followed by those that the store counts.
    windows: Vec<Window>,
    /// Number of windows that this gateway counts; the store counts the others.
    local: usize,
    store: Option<Arc<Store>>,
    counters: Arc<Counters>,
    policy: HeaderValue,
}

/// Dependencies of a compiled rate limit.
pub struct LimiterDeps<'m> {
    /// Function that returns the unique name of a scope. All requests of a scope are counted together.
    pub scope: &'m dyn Fn(RateLimitScope) -> &'m str,
    /// Counters of this gateway.
    pub counters: &'m Arc<Counters>,
    /// Store that counts for several gateways; `None` if no window names a store.
    pub store: Option<&'m Arc<Store>>,
    /// Function that returns the metric of the requests that the window with this name refuses.
    pub refusals: &'m dyn Fn(&str) -> Refusals,
}

impl RateLimiter {
    /// Creates the limiter of a route. Returns `None` if the configuration has no window.
    pub fn new(config: &RateLimits, means: &LimiterDeps<'_>) -> Option<Self> {
        let is_by_claim = |window: &RateLimit| matches!(window.key, RateLimitKey::Claim(_));
        let limiter = RateLimiter {
            on_arrival: Windows::new(config, means, |window| !is_by_claim(window)),
            by_claim: Windows::new(config, means, is_by_claim),
        };
        (limiter.on_arrival.is_some() || limiter.by_claim.is_some()).then_some(limiter)
    }

    /// Returns all windows of the limiter.
    pub fn windows(&self) -> impl Iterator<Item = &Window> {
        self.on_arrival.iter().chain(&self.by_claim).flat_map(Windows::iter)
    }
}

impl Windows {
    /// Returns the windows.
    pub fn iter(&self) -> impl Iterator<Item = &Window> {
        self.windows.iter()
    }

    fn new(
        config: &RateLimits,
        means: &LimiterDeps<'_>,
        belongs: impl Fn(&RateLimit) -> bool,
    ) -> Option<Self> {
        let mut windows: Vec<_> = config.named().filter(|(_, window)| belongs(window)).collect();
        let is_local = |window: &RateLimit| window.store == CounterStore::Local;
        windows.sort_by_key(|(_, window)| !is_local(window));
        // Validation of the configuration allows no more windows.
        windows.truncate(MAX_RATE_LIMITS);
        let local = windows.iter().filter(|(_, window)| is_local(window)).count();
        let compiled = |(name, window): &(Cow<'_, str>, &RateLimit)| {
            Window::new(name, window, (means.scope)(window.scope), means.counters, (means.refusals)(name))
        };
        let store = if local < windows.len() { means.store.cloned() } else { None };
        let windows: Vec<Window> = windows.iter().map(compiled).collect();
        let mut policy = String::new();
        windows.iter().for_each(|window| window.describe(&mut policy));
        (!windows.is_empty()).then(|| Windows {
            local: if store.is_some() { local } else { windows.len() },
            windows,
            store,
            counters: means.counters.clone(),
            policy: field(&policy),
        })
    }

    /// Counts a request. The verdict is known at once if this gateway counts all windows, or if it knows that a
    /// window refuses the request. Otherwise the caller has to wait for the store.
    pub fn check(&self, subject: &RateLimitSubject<'_>, now: Instant) -> CheckOutcome<'_> {
        let mut tally = Tally::default();
        for (key, window) in tally.keys.iter_mut().zip(&self.windows) {
            *key = window.key(subject, &self.counters);
        }
        let here = 0..self.local;
        match &self.store {
            None => {
                self.take(here, &mut tally, now);
                CheckOutcome::Done(self.verdict(&tally))
            }
            Some(_) if self.is_known_to_be_refused(&mut tally, now) || !self.take(here, &mut tally, now) => {
                CheckOutcome::Done(self.verdict(&tally))
            }
            Some(store) => {
                let ask = |window: &Window| Ask {
                    key: window.shared_key(subject),
                    limit: window.limit,
                    window_ms: window.ms,
                };
                let asks = self.windows[self.local..].iter().map(ask).collect();
                CheckOutcome::Waits(Waiting { windows: self, store, tally, asks, now })
            }
        }
    }

    /// Counts a request in all of these windows and returns true, or in none and returns false if a window has
    /// no room. Of two concurrent requests both may be refused, if one takes the last room of a window and
    /// gives it back because another window has no room. The gateway never allows more requests than the limit.
    fn take(&self, windows: Range<usize>, tally: &mut Tally, now: Instant) -> bool {
        let Windows { counters, .. } = self;
        if windows.len() > 1 {
            // A client without room in one window must not take room in the other windows, even for a moment.
            for i in windows.clone() {
                let Window { limit, ms, .. } = self.windows[i];
                tally.counts[i] = counters.peek(tally.keys[i], limit, ms, now);
            }
            if tally.counts[windows.clone()].iter().any(|count| !count.allowed) {
                return false;
            }
        }
        for i in windows.clone() {
            let Window { limit, ms, .. } = self.windows[i];
            tally.counts[i] = counters.count(tally.keys[i], limit, ms, now);
            if !tally.counts[i].allowed {
                self.give_back(windows.start..i, tally, now);
                return false;
            }
        }
        true
    }

    fn give_back(&self, windows: Range<usize>, tally: &mut Tally, now: Instant) {
        for i in windows {
            tally.counts[i] = self.counters.give_back(tally.keys[i], tally.counts[i], now);
        }
    }

    /// Returns the positions of the windows that the store counts.
    fn shared(&self) -> Range<usize> {
        self.local..self.windows.len()
    }

    fn verdict(&self, tally: &Tally) -> Verdict<Quota> {
        // A window that was not checked has no state to send.
        let counted = || self.windows.iter().zip(tally.counts).filter(|(_, count)| count.is_known());
        let mut limits = String::new();
        counted().for_each(|(window, count)| window.tell(count, &mut limits));
        let quota = Quota { limits: field(&limits), policy: self.policy.clone() };
        let refusing = || counted().filter(|(_, count)| !count.allowed);
        let Some(after) = refusing().map(|(_, count)| reset_secs(count)).max() else {
            return Verdict::Continue(quota);
        };
        refusing().for_each(|(window, _)| window.refusals.inc());
        let used_up =
            refusing().map(|(w, _)| format!("{} requests in {} s are used up", w.limit, w.ms / 1000));
        let detail = used_up.collect::<Vec<_>>().join(", and ");
        let reply = Reply::new(Problem::RateLimited, detail)
            .violated_policies(refusing().map(|(window, _)| window.name.clone()).collect())
            .field(header::RETRY_AFTER, HeaderValue::from(after))
            .field(RATELIMIT, quota.limits)
            .field(RATELIMIT_POLICY, quota.policy);
        Verdict::Reply(reply)
    }
}

/// Keys and counts of one request, in the order of [`Windows`].
#[derive(Default)]
struct Tally {
    keys: [u64; MAX_RATE_LIMITS],
    counts: [Count; MAX_RATE_LIMITS],
}

/// State of a client in its windows, as field values for the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    limits: HeaderValue,
    policy: HeaderValue,
}

impl Quota {
    /// Joins the state of the windows on arrival with that of the windows by claim.
    #[must_use]
    pub fn and(&self, other: &Quota) -> Quota {
        let joined = |one: &HeaderValue, other: &HeaderValue| {
            HeaderValue::from_bytes(&[one.as_bytes(), b", ", other.as_bytes()].concat())
        };
        match (joined(&self.limits, &other.limits), joined(&self.policy, &other.policy)) {
            (Ok(limits), Ok(policy)) => Quota { limits, policy },
            _ => self.clone(),
        }
    }

    /// Adds the state to a response.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a field, which it does not do for these.
    pub fn on_response(&self, response: &mut ResponseHeader) -> Result<()> {
        response.insert_header(RATELIMIT, self.limits.clone())?;
        response.insert_header(RATELIMIT_POLICY, self.policy.clone())
    }

    /// Adds the state to a local reply. A 429 reply has the fields already.
    pub fn on_reply(&self, fields: &mut HeaderMap) {
        fields.entry(RATELIMIT).or_insert_with(|| self.limits.clone());
        fields.entry(RATELIMIT_POLICY).or_insert_with(|| self.policy.clone());
    }
}

/// Converts a text to a field value. Names and numbers are always valid.
fn field(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
