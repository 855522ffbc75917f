//! What is counted of certificates by ACME.

use prometheus::{IntCounter, IntCounterVec};

use super::families::{Families, gone};

const RESULTS: [&str; 2] = ["issued", "failed"];

/// The metrics of all certificates by ACME.
pub struct AcmeFamilies {
    orders: IntCounterVec,
}

/// The handles of one certificate.
pub struct AcmeMetrics {
    /// Orders that brought a certificate.
    pub issued: IntCounter,
    /// Orders that did not.
    pub failed: IntCounter,
}

impl AcmeFamilies {
    pub(super) fn new(new: &Families<'_>) -> prometheus::Result<Self> {
        Ok(AcmeFamilies {
            orders: new.counters(
                "proxy_acme_orders_total",
                "Orders of certificates, by what became of them",
                &["vhost", "result"],
            )?,
        })
    }

    /// The handles of a virtual host's certificate.
    pub fn of(&self, vhost: &str) -> AcmeMetrics {
        let [issued, failed] = RESULTS.map(|result| self.orders.with_label_values(&[vhost, result]));
        AcmeMetrics { issued, failed }
    }

    /// Forgets a virtual host that has no certificate by ACME any more.
    pub fn forget(&self, vhost: &str) {
        // A series that was never there need not go.
        for result in RESULTS {
            gone(self.orders.remove_label_values(&[vhost, result]));
        }
    }
}
