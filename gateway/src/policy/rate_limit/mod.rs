//! How much a client may ask: so many requests in a window that opens with the client's first request. Several
//! windows may hold together; a request needs room in each of them, and is counted in all of them or in none.
//! One that finds no room is refused with 429 until the window has passed.
//!
//! Counting is exact, per client, in bounded memory: see [`Counters`]. Windows may be shared by several gateways:
//! then a [`Store`] counts, and the gateway itself while that is away. Every answer tells the client where it
//! stands (the `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers-10).

mod client;
mod counters;
mod shared_check;
mod store;
mod window;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::ResponseHeader;

pub use client::RateLimitSubject;
pub use counters::{Count, Counters};
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

/// The compiled `[rate_limit]` of a route.
pub struct RateLimiter {
    /// What is asked as soon as a request has its route: it protects everything behind it, such as the check of a
    /// password.
    pub on_arrival: Option<Windows>,
    /// What goes by a claim, and can be asked only once a token was looked at. A request that is refused here has
    /// been counted in the others.
    pub by_claim: Option<Windows>,
}

/// Windows that are asked together.
pub struct Windows {
    /// Those that are counted here, and then those that the store counts.
    windows: Vec<Window>,
    /// How many of them are counted here.
    local: usize,
    store: Option<Arc<Store>>,
    counters: Arc<Counters>,
    policy: HeaderValue,
}

/// What a compiled rate limit is made with.
pub struct LimiterDeps<'m> {
    /// What is counted together, in words that no other scope has.
    pub scope: &'m dyn Fn(RateLimitScope) -> &'m str,
    /// Where this gateway counts.
    pub counters: &'m Arc<Counters>,
    /// What counts for several gateways, where a window says so.
    pub store: Option<&'m Arc<Store>>,
    /// Counts what a window of this name refuses.
    pub refusals: &'m dyn Fn(&str) -> Refusals,
}

impl RateLimiter {
    /// A limiter for all requests of a scope together; `None` where there is no window.
    pub fn new(config: &RateLimits, means: &LimiterDeps<'_>) -> Option<Self> {
        let is_by_claim = |window: &RateLimit| matches!(window.key, RateLimitKey::Claim(_));
        let limiter = RateLimiter {
            on_arrival: Windows::new(config, means, |window| !is_by_claim(window)),
            by_claim: Windows::new(config, means, is_by_claim),
        };
        (limiter.on_arrival.is_some() || limiter.by_claim.is_some()).then_some(limiter)
    }

    /// All of its windows.
    pub fn windows(&self) -> impl Iterator<Item = &Window> {
        self.on_arrival.iter().chain(&self.by_claim).flat_map(|windows| &windows.windows)
    }
}

impl Windows {
    fn new(
        config: &RateLimits,
        means: &LimiterDeps<'_>,
        belongs: impl Fn(&RateLimit) -> bool,
    ) -> Option<Self> {
        let mut windows: Vec<_> = config.named().filter(|(_, window)| belongs(window)).collect();
        let is_local = |window: &RateLimit| window.store == CounterStore::Local;
        windows.sort_by_key(|(_, window)| !is_local(window));
        // Validation allows no more.
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

    /// Counts a request. Where all windows are counted here, or one of these refuses it, the verdict is there at
    /// once; else the store has to be waited for.
    pub fn check(&self, asker: &RateLimitSubject<'_>, now: Instant) -> CheckOutcome<'_> {
        let mut tally = Tally::default();
        for (key, window) in tally.keys.iter_mut().zip(&self.windows) {
            *key = window.key(asker, &self.counters);
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
                    key: window.shared_key(asker),
                    limit: window.limit,
                    window_ms: window.ms,
                };
                let asks = self.windows[self.local..].iter().map(ask).collect();
                CheckOutcome::Waits(Waiting { windows: self, store, tally, asks, now })
            }
        }
    }

    /// Counts a request in these windows, or in none: where one of them has no room, the others get back what
    /// they counted. (Of requests that come at the very same moment one may so be refused for the sake of another
    /// that is refused elsewhere. Never is more let through than the limit.)
    fn take(&self, windows: Range<usize>, tally: &mut Tally, now: Instant) -> bool {
        let Windows { counters, .. } = self;
        if windows.len() > 1 {
            // Whoever has used up one window must not even for a moment take room from the others.
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

    /// The places of the windows that the store counts.
    fn shared(&self) -> Range<usize> {
        self.local..self.windows.len()
    }

    fn verdict(&self, tally: &Tally) -> Verdict<Quota> {
        // A window that nobody came to ask has nothing to tell.
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

/// What is known about a request's windows, by their places.
#[derive(Default)]
struct Tally {
    keys: [u64; MAX_RATE_LIMITS],
    counts: [Count; MAX_RATE_LIMITS],
}

/// Where a client stands, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    limits: HeaderValue,
    policy: HeaderValue,
}

impl Quota {
    /// Both together: of windows that were asked on arrival, and of those by claim.
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

    /// Tells the client, on a response that it gets.
    ///
    /// # Errors
    /// Where Pingora refuses a field, which it does not do for these.
    pub fn on_response(&self, response: &mut ResponseHeader) -> Result<()> {
        response.insert_header(RATELIMIT, self.limits.clone())?;
        response.insert_header(RATELIMIT_POLICY, self.policy.clone())
    }

    /// The same on an answer of the gateway's own; one that refuses for want of room has told already.
    pub fn on_reply(&self, fields: &mut HeaderMap) {
        fields.entry(RATELIMIT).or_insert_with(|| self.limits.clone());
        fields.entry(RATELIMIT_POLICY).or_insert_with(|| self.policy.clone());
    }
}

/// Names and numbers always make a field.
fn field(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
