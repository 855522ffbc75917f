//! Status of each ACME certificate, for the operator and for the management API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::config::ChallengeKind;

/// Status of one certificate.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AcmeStatus {
    /// Name of the certificate: the virtual host's domain.
    pub domain: String,
    /// Names that the certificate must be valid for.
    pub names: Vec<String>,
    /// State of the certificate.
    pub state: AcmeState,
    /// Challenge by which the gateway proves control of the names to the server.
    pub challenge: ChallengeKind,
    /// End of the validity of the certificate that is served, in seconds since 1970; null if there is no
    /// certificate.
    #[serde(serialize_with = "seconds")]
    #[schemars(with = "Option<f64>")]
    pub not_after: Option<SystemTime>,
    /// Time of the next order, in seconds since 1970; null if an order is in progress.
    #[serde(serialize_with = "seconds")]
    #[schemars(with = "Option<f64>")]
    pub next_attempt: Option<SystemTime>,
    /// Number of failed orders since the last successful one.
    pub failures: u32,
    /// Error of the last failed order; null if no order has failed since the last successful one.
    pub last_error: Option<String>,
}

/// State of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcmeState {
    /// No certificate exists, and no order has started yet.
    Waiting,
    /// An order is in progress. The previous certificate, if there is one, is still served.
    Ordering,
    /// The certificate is available, and no order is due.
    Valid,
    /// The last order failed. The previous certificate, if there is one, is served until it expires.
    Failing,
}

fn seconds<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()).serialize(serializer)
}

/// Statuses of all certificates. A reader never waits.
#[derive(Default)]
pub struct Statuses(ArcSwap<BTreeMap<String, AcmeStatus>>);

impl Statuses {
    /// Returns the current statuses, by domain.
    pub fn load(&self) -> Arc<BTreeMap<String, AcmeStatus>> {
        self.0.load_full()
    }

    pub(super) fn publish(&self, statuses: impl Iterator<Item = AcmeStatus>) {
        self.0.store(Arc::new(statuses.map(|status| (status.domain.clone(), status)).collect()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn acme_status_is_serialized_as_plain_json() {
        let status = AcmeStatus {
            domain: "a.example".to_owned(),
            names: vec!["a.example".to_owned()],
            state: AcmeState::Failing,
            challenge: ChallengeKind::Http01,
            not_after: None,
            next_attempt: Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
            failures: 1,
            last_error: Some("it said no".to_owned()),
        };
        let json = serde_json::to_value(status).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "domain": "a.example", "names": ["a.example"], "state": "failing", "challenge": "http-01",
                "not_after": null, "next_attempt": 1_800_000_000.0, "failures": 1, "last_error": "it said no",
            })
        );
    }
}
