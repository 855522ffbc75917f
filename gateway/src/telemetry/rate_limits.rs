//! Metrics of rate limits.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, gone};

/// Labels of the reasons to count a request in this process instead of the store. The store is not reachable, has too
/// many waiting requests, answers too late, or answers with an error.
const REASONS: [&str; 4] = ["away", "busy", "too_late", "failed"];

/// Metrics of all rate limits.
pub struct RateLimitFamilies {
    /// Number of clients whose counters were removed within their window, because there was no room for more.
    pub evicted: IntCounter,
    refused: IntCounterVec,
    store_up: IntGaugeVec,
    counted_here: IntCounterVec,
}

/// Counter of requests that a window refuses. Most windows refuse none, so the counter is looked up when it is first
/// needed.
pub struct Refusals {
    family: IntCounterVec,
    labels: [String; 3],
    counter: OnceLock<IntCounter>,
}

/// Metric handles of a counter store.
pub struct StoreMetrics {
    /// State of the store: 1 if it answers, else 0.
    pub up: IntGauge,
    /// Number of requests counted in this process because the store was not reachable.
    pub away: IntCounter,
    /// Number of requests counted in this process because too many requests waited for the store.
    pub busy: IntCounter,
    /// Number of requests counted in this process because the store did not answer in time.
    pub too_late: IntCounter,
    /// Number of requests counted in this process because the store answered with an error, or its connection broke.
    pub failed: IntCounter,
}

impl Refusals {
    /// Counts a refused request.
    pub fn inc(&self) {
        self.counter.get_or_init(|| self.family.with_label_values(&self.labels)).inc();
    }
}

impl RateLimitFamilies {
    pub(super) fn new(new: &Families<'_>) -> prometheus::Result<Self> {
        Ok(RateLimitFamilies {
            evicted: new.counter(
                "proxy_rate_limit_evictions_total",
                "Clients dropped before the end of their windows because the table was full (proxy.rate_limit_clients)",
            )?,
            refused: new.counters(
                "proxy_rate_limited_total",
                "Requests over a rate limit, by policy",
                &["vhost", "route", "policy"],
            )?,
            store_up: new.gauges(
                "proxy_rate_limit_store_up",
                "1 while the store counts requests, 0 while the gateway counts them itself",
                &["store"],
            )?,
            counted_here: new.counters(
                "proxy_rate_limit_fallbacks_total",
                "Requests counted by the gateway itself instead of the store, by reason",
                &["store", "reason"],
            )?,
        })
    }

    /// Returns the counter of requests that a window of a route refuses.
    pub fn refusals(&self, vhost: &str, route: &str, policy: &str) -> Refusals {
        let labels = [vhost, route, policy].map(str::to_owned);
        Refusals { family: self.refused.clone(), labels, counter: OnceLock::new() }
    }

    /// Removes the metrics of a window that no longer exists.
    pub fn forget(&self, vhost: &str, route: &str, policy: &str) {
        // The removal of a series that was never created fails, which is harmless.
        gone(self.refused.remove_label_values(&[vhost, route, policy]));
    }

    /// Returns the metric handles of a store. `name` must not contain a secret.
    pub fn store(&self, name: &str) -> StoreMetrics {
        let [away, busy, too_late, failed] =
            REASONS.map(|reason| self.counted_here.with_label_values(&[name, reason]));
        StoreMetrics { up: self.store_up.with_label_values(&[name]), away, busy, too_late, failed }
    }

    /// Removes the metrics of a store that is no longer used.
    pub fn forget_store(&self, name: &str) {
        gone(self.store_up.remove_label_values(&[name]));
        for reason in REASONS {
            gone(self.counted_here.remove_label_values(&[name, reason]));
        }
    }
}
