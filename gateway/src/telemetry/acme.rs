//! What is counted of certificates by ACME.

use std::time::SystemTime;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::Families;

const RESULTS: [&str; 2] = ["issued", "failed"];

/// The metrics of all certificates by ACME.
pub struct AcmeFamilies {
    orders: IntCounterVec,
    ends: IntGaugeVec,
}

/// The handles of one certificate.
pub struct AcmeMetrics {
    /// Orders that brought a certificate.
    pub issued: IntCounter,
    /// Orders that did not.
    pub failed: IntCounter,
    ends: IntGauge,
}

impl AcmeMetrics {
    /// Until when the certificate that is served is valid, if there is one.
    pub fn ends(&self, at: Option<SystemTime>) {
        let seconds = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map(|at| at.as_secs());
        self.ends.set(seconds.and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0));
    }
}

impl AcmeFamilies {
    pub(super) fn new(new: &Families<'_>) -> prometheus::Result<Self> {
        Ok(AcmeFamilies {
            orders: new.counters(
                "proxy_acme_orders_total",
                "Orders of certificates, by what became of them",
                &["vhost", "result"],
            )?,
            ends: new.gauges(
                "proxy_acme_certificate_expiry_timestamp_seconds",
                "When the certificate by ACME ends, in seconds since 1970; 0 where there is none",
                &["vhost"],
            )?,
        })
    }

    /// The handles of a virtual host's certificate.
    pub fn of(&self, vhost: &str) -> AcmeMetrics {
        let [issued, failed] = RESULTS.map(|result| self.orders.with_label_values(&[vhost, result]));
        AcmeMetrics { issued, failed, ends: self.ends.with_label_values(&[vhost]) }
    }

    /// Forgets a virtual host that has no certificate by ACME any more.
    pub fn forget(&self, vhost: &str) {
        // A series that was never there need not go.
        for result in RESULTS {
            let _ = self.orders.remove_label_values(&[vhost, result]);
        }
        let _ = self.ends.remove_label_values(&[vhost]);
    }
}
