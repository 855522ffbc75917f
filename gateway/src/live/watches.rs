//! What background services follow: each is told of its part of whatever runs, when it changes.

use std::sync::Arc;

use tokio::sync::watch;

use super::snapshot::Snapshot;
use crate::policy::auth::KeySet;
use crate::policy::rate_limit;
use crate::tls::acme::AcmePlan;
use crate::upstream::{HealthPlan, ResolvedAddresses};

/// The parts that somebody follows.
pub struct Watches {
    health: watch::Sender<HealthPlan>,
    places: watch::Sender<Arc<ResolvedAddresses>>,
    acme: watch::Sender<Arc<AcmePlan>>,
    counter_stores: watch::Sender<Vec<Arc<rate_limit::Store>>>,
    key_sets: watch::Sender<Arc<Vec<Arc<KeySet>>>>,
}

impl Watches {
    /// Those of `first`, with which the process begins.
    pub(super) fn new(first: &Snapshot) -> Self {
        Watches {
            health: watch::Sender::new(first.health.clone()),
            places: watch::Sender::new(first.places.clone()),
            acme: watch::Sender::new(first.acme.clone()),
            counter_stores: watch::Sender::new(first.stores.clone()),
            key_sets: watch::Sender::new(first.key_sets()),
        }
    }

    /// Tells everybody that `now` runs.
    pub(super) fn send(&self, now: &Snapshot) {
        self.health.send_replace(now.health.clone());
        self.places.send_replace(now.places.clone());
        self.acme.send_replace(now.acme.clone());
        self.counter_stores.send_replace(now.stores.clone());
        self.key_sets.send_replace(now.key_sets());
    }

    /// Which backends are probed, and how.
    pub fn health_plan(&self) -> watch::Receiver<HealthPlan> {
        self.health.subscribe()
    }

    /// Where names of backends lead.
    pub fn places(&self) -> watch::Receiver<Arc<ResolvedAddresses>> {
        self.places.subscribe()
    }

    /// Which certificates are to be had by ACME.
    pub fn acme_plan(&self) -> watch::Receiver<Arc<AcmePlan>> {
        self.acme.subscribe()
    }

    /// Which stores count for rate limits.
    pub fn counter_stores(&self) -> watch::Receiver<Vec<Arc<rate_limit::Store>>> {
        self.counter_stores.subscribe()
    }

    /// The keys of issuers that are to be fetched.
    pub fn key_sets(&self) -> watch::Receiver<Arc<Vec<Arc<KeySet>>>> {
        self.key_sets.subscribe()
    }
}
