//! Metrics of certificates from an ACME server.

use prometheus::{IntCounter, IntCounterVec};

use super::families::{Families, gone};

const RESULTS: [&str; 2] = ["issued", "failed"];

/// Metrics of all ACME certificates.
pub struct AcmeFamilies {
    orders: IntCounterVec,
}

/// Metric handles of one certificate.
pub struct AcmeMetrics {
    /// Number of orders after which a certificate was issued.
    pub issued: IntCounter,
    /// Number of orders that failed.
    pub failed: IntCounter,
}

impl AcmeFamilies {
    pub(super) fn new(new: &Families<'_>) -> prometheus::Result<Self> {
        Ok(AcmeFamilies {
            orders: new.counters(
                "proxy_acme_orders_total",
                "Orders of certificates, by result",
                &["vhost", "result"],
            )?,
        })
    }

    /// Returns the metric handles of a virtual host's certificate.
    pub fn of(&self, vhost: &str) -> AcmeMetrics {
        let [issued, failed] = RESULTS.map(|result| self.orders.with_label_values(&[vhost, result]));
        AcmeMetrics { issued, failed }
    }

    /// Removes the metrics of a virtual host that no longer has an ACME certificate.
    pub fn forget(&self, vhost: &str) {
        // The removal of a series that was never created fails, which is harmless.
        for result in RESULTS {
            gone(self.orders.remove_label_values(&[vhost, result]));
        }
    }
}
