//! How each certificate by ACME is, for people and for the management API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::config::ChallengeKind;

/// How one certificate is.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AcmeStatus {
    /// The name of the certificate: the virtual host's domain.
    pub domain: String,
    /// Every name that it is to be for.
    pub names: Vec<String>,
    /// How it is.
    pub state: AcmeState,
    /// How the server is shown that the names lead here.
    pub challenge: ChallengeKind,
    /// Until when the certificate that is served is valid, in seconds since 1970; none: there is none.
    #[serde(serialize_with = "seconds")]
    #[schemars(with = "Option<f64>")]
    pub not_after: Option<SystemTime>,
    /// When an order is made next, in seconds since 1970; none: one is under way.
    #[serde(serialize_with = "seconds")]
    #[schemars(with = "Option<f64>")]
    pub next_attempt: Option<SystemTime>,
    /// How many orders have failed since one was fulfilled.
    pub failures: u32,
    /// Why the last of them did.
    pub last_error: Option<String>,
}

/// What is going on with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcmeState {
    /// There is none, and the order has yet to begin.
    Waiting,
    /// An order is under way. The certificate before, if there is one, is served meanwhile.
    Ordering,
    /// It is there, and there is nothing to do.
    Valid,
    /// The last order failed. The certificate before, if there is one, is served until it ends.
    Failing,
}

fn seconds<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()).serialize(serializer)
}

/// How all of them are. Who asks never waits.
#[derive(Default)]
pub struct Statuses(ArcSwap<BTreeMap<String, AcmeStatus>>);

impl Statuses {
    /// How they are now, by domain.
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
    fn it_is_plain_json() {
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
