//! What is counted of who is not let through, and of the keys of issuers of tokens.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, gone};

/// Why a request is not let through: the names of problems.
const REASONS: [&str; 7] = [
    "address_denied",
    "credentials_missing",
    "credentials_invalid",
    "not_allowed",
    "auth_unavailable",
    "rate_limited",
    "other",
];
/// What becomes of a fetch.
const RESULTS: [&str; 2] = ["fetched", "failed"];

/// The metrics of all routes, and of all issuers.
pub struct AuthFamilies {
    refused: IntCounterVec,
    fetches: IntCounterVec,
    fetched_at: IntGaugeVec,
}

/// The handles of one route: most routes refuse nobody, so each is looked up when it is needed first.
pub struct RefusalMetrics {
    family: IntCounterVec,
    labels: [String; 2],
    counters: [OnceLock<IntCounter>; REASONS.len()],
}

impl RefusalMetrics {
    /// Counts a request that is not let through, by the name of the problem that it is answered with.
    pub fn refused(&self, reason: Option<&str>) {
        let known = REASONS.iter().position(|known| Some(*known) == reason);
        let index = known.unwrap_or(REASONS.len() - 1);
        let [vhost, route] = &self.labels;
        let find = || self.family.with_label_values(&[vhost, route, REASONS[index]]);
        self.counters[index].get_or_init(find).inc();
    }
}

/// The handles of the keys at one URL.
pub struct KeySetMetrics {
    /// Fetches that brought keys.
    pub fetched: IntCounter,
    /// Fetches that did not.
    pub failed: IntCounter,
    /// When keys were fetched last, in seconds since 1970; 0: never.
    pub fetched_at: IntGauge,
}

impl AuthFamilies {
    pub(super) fn new(new: &Families<'_>) -> prometheus::Result<Self> {
        Ok(AuthFamilies {
            refused: new.counters(
                "proxy_auth_failures_total",
                "Requests not let through because of who asks, by reason",
                &["vhost", "route", "reason"],
            )?,
            fetches: new.counters(
                "proxy_jwks_fetches_total",
                "Fetches of the keys of issuers of tokens",
                &["url", "result"],
            )?,
            fetched_at: new.gauges(
                "proxy_jwks_fetched_timestamp_seconds",
                "When the keys of an issuer were fetched last, in seconds since 1970",
                &["url"],
            )?,
        })
    }

    /// The handles of a route.
    pub(super) fn of_route(&self, vhost: &str, route: &str) -> RefusalMetrics {
        let labels = [vhost, route].map(str::to_owned);
        RefusalMetrics { family: self.refused.clone(), labels, counters: Default::default() }
    }

    /// Forgets a route that is gone.
    pub(super) fn forget_route(&self, vhost: &str, route: &str) {
        for reason in REASONS {
            // A series that was never there need not go.
            gone(self.refused.remove_label_values(&[vhost, route, reason]));
        }
    }

    /// The handles of the keys at `url`, whose query is nobody's business.
    pub fn key_set(&self, url: &str) -> KeySetMetrics {
        let url = without_query(url);
        let [fetched, failed] = RESULTS.map(|result| self.fetches.with_label_values(&[url, result]));
        KeySetMetrics { fetched, failed, fetched_at: self.fetched_at.with_label_values(&[url]) }
    }

    /// Forgets keys that nobody asks for any more.
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
