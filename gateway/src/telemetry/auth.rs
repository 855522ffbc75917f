//! Metrics of requests that are denied, and of the keys of token issuers.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, gone};

/// Labels of the reasons to deny a request. Each is the name of a problem, except `other`.
const REASONS: [&str; 7] = [
    "address_denied",
    "credentials_missing",
    "credentials_invalid",
    "not_allowed",
    "auth_unavailable",
    "rate_limited",
    "other",
];
/// Labels of the results of a key fetch.
const RESULTS: [&str; 2] = ["fetched", "failed"];

/// Metrics of denied requests of all routes, and of the token issuers' keys.
pub struct AuthFamilies {
    refused: IntCounterVec,
    fetches: IntCounterVec,
    fetched_at: IntGaugeVec,
}

/// Metric handles of one route. Most routes deny no request, so each counter is looked up when it is first needed.
pub struct RefusalMetrics {
    family: IntCounterVec,
    labels: [String; 2],
    counters: [OnceLock<IntCounter>; REASONS.len()],
}

impl RefusalMetrics {
    /// Counts a denied request. `reason` is the name of the problem in the response; `None` counts as `other`.
    pub fn refused(&self, reason: Option<&str>) {
        let known = REASONS.iter().position(|known| Some(*known) == reason);
        let index = known.unwrap_or(REASONS.len() - 1);
        let [vhost, route] = &self.labels;
        let find = || self.family.with_label_values(&[vhost, route, REASONS[index]]);
        self.counters[index].get_or_init(find).inc();
    }
}

/// Metric handles of the key set at one URL.
pub struct KeySetMetrics {
    /// Number of fetches that succeeded.
    pub fetched: IntCounter,
    /// Number of fetches that failed.
    pub failed: IntCounter,
    /// Time of the last successful fetch, in seconds since 1970; 0 if there was none.
    pub fetched_at: IntGauge,
}

impl AuthFamilies {
    pub(super) fn new(new: &Families<'_>) -> prometheus::Result<Self> {
        Ok(AuthFamilies {
            refused: new.counters(
                "proxy_auth_failures_total",
                "Requests refused by checks of the client's address or credentials, by reason",
                &["vhost", "route", "reason"],
            )?,
            fetches: new.counters(
                "proxy_jwks_fetches_total",
                "Fetches of the keys of token issuers",
                &["url", "result"],
            )?,
            fetched_at: new.gauges(
                "proxy_jwks_fetched_timestamp_seconds",
                "When the keys of an issuer were last fetched, in seconds since 1970",
                &["url"],
            )?,
        })
    }

    /// Returns the metric handles of a route.
    pub(super) fn of_route(&self, vhost: &str, route: &str) -> RefusalMetrics {
        let labels = [vhost, route].map(str::to_owned);
        RefusalMetrics { family: self.refused.clone(), labels, counters: Default::default() }
    }

    /// Removes the metrics of a route that no longer exists.
    pub(super) fn forget_route(&self, vhost: &str, route: &str) {
        for reason in REASONS {
            // The removal of a series that was never created fails, which is harmless.
            gone(self.refused.remove_label_values(&[vhost, route, reason]));
        }
    }

    /// Returns the metric handles of the key set at `url`. The label omits the query, which may be confidential.
    pub fn key_set(&self, url: &str) -> KeySetMetrics {
        let url = without_query(url);
        let [fetched, failed] = RESULTS.map(|result| self.fetches.with_label_values(&[url, result]));
        KeySetMetrics { fetched, failed, fetched_at: self.fetched_at.with_label_values(&[url]) }
    }

    /// Removes the metrics of a key set that is no longer fetched.
    pub fn forget_key_set(&self, url: &str) {
        let url = without_query(url);
        for result in RESULTS {
            gone(self.fetches.remove_label_values(&[url, result]));
        }
        gone(self.fetched_at.remove_label_values(&[url]));
    }
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}
