//! What is counted of rate limits.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, gone};

/// Why a request was counted here in place of the store, as labels: it is away, it had too many to answer, it was
/// too late, or it answered with an error.
const REASONS: [&str; 4] = ["away", "busy", "too_late", "failed"];

/// The metrics of all rate limits.
pub struct RateLimitFamilies {
    /// Clients that were forgotten within their windows, for want of room.
    pub evicted: IntCounter,
    refused: IntCounterVec,
    store_up: IntGaugeVec,
    counted_here: IntCounterVec,
}

/// Counts what a window refuses. Most of them never do: the counter is looked up when it is needed first.
pub struct Refusals {
    family: IntCounterVec,
    labels: [String; 3],
    counter: OnceLock<IntCounter>,
}

/// The handles of a store of counters.
pub struct StoreMetrics {
    /// 1 while it answers, else 0.
    pub up: IntGauge,
    /// Requests counted here because it was away.
    pub away: IntCounter,
    /// Because too many waited for it.
    pub busy: IntCounter,
    /// Because it let them wait in vain.
    pub too_late: IntCounter,
    /// Because it answered with an error, or its connection broke.
    pub failed: IntCounter,
}

impl Refusals {
    /// Counts a request.
    pub fn inc(&self) {
        self.counter.get_or_init(|| self.family.with_label_values(&self.labels)).inc();
    }
}

impl RateLimitFamilies {
    pub(super) fn new(new: &Families<'_>) -> prometheus::Result<Self> {
        Ok(RateLimitFamilies {
            evicted: new.counter(
                "proxy_rate_limit_evictions_total",
                "Clients forgotten within their windows, for want of room (proxy.rate_limit_clients)",
            )?,
            refused: new.counters(
                "proxy_rate_limited_total",
                "Requests over a rate limit, by the window that had no room",
                &["vhost", "route", "policy"],
            )?,
            store_up: new.gauges(
                "proxy_rate_limit_store_up",
                "1 while the store counts, 0 while the gateway does by itself",
                &["store"],
            )?,
            counted_here: new.counters(
                "proxy_rate_limit_fallbacks_total",
                "Requests counted by the gateway itself in place of the store, by why",
                &["store", "reason"],
            )?,
        })
    }

    /// Counts what a window of a route refuses.
    pub fn refusals(&self, vhost: &str, route: &str, policy: &str) -> Refusals {
        let labels = [vhost, route, policy].map(str::to_owned);
        Refusals { family: self.refused.clone(), labels, counter: OnceLock::new() }
    }

    /// Forgets a window that is gone.
    pub fn forget(&self, vhost: &str, route: &str, policy: &str) {
        // A series that was never there need not go.
        gone(self.refused.remove_label_values(&[vhost, route, policy]));
    }

    /// The handles of a store; its name holds no secret.
    pub fn store(&self, name: &str) -> StoreMetrics {
        let [away, busy, too_late, failed] =
            REASONS.map(|reason| self.counted_here.with_label_values(&[name, reason]));
        StoreMetrics { up: self.store_up.with_label_values(&[name]), away, busy, too_late, failed }
    }

    /// Forgets a store that nobody counts in any more.
    pub fn forget_store(&self, name: &str) {
        gone(self.store_up.remove_label_values(&[name]));
        for reason in REASONS {
            gone(self.counted_here.remove_label_values(&[name, reason]));
        }
    }
}
