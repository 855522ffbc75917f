//! Channels that tell background services about changes. Each service receives its part of the running snapshot
//! whenever a new snapshot is swapped in.

use std::sync::Arc;

use tokio::sync::watch;

use super::snapshot::Snapshot;
use crate::policy::auth::KeySet;
use crate::policy::rate_limit;
use crate::tls::acme::AcmePlan;
use crate::upstream::{HealthPlan, ResolvedAddresses};

/// Senders of the parts of the running snapshot that background services follow.
pub struct Watches {
    health: watch::Sender<HealthPlan>,
    resolved: watch::Sender<Arc<ResolvedAddresses>>,
    acme: watch::Sender<Arc<AcmePlan>>,
    counter_stores: watch::Sender<Vec<Arc<rate_limit::Store>>>,
    key_sets: watch::Sender<Arc<Vec<Arc<KeySet>>>>,
}

impl Watches {
    /// Creates the channels with the values of `first`, the snapshot that the process starts with.
    pub(super) fn new(first: &Snapshot) -> Self {
        Watches {
            health: watch::Sender::new(first.health.clone()),
            resolved: watch::Sender::new(first.resolved.clone()),
            acme: watch::Sender::new(first.acme.clone()),
            counter_stores: watch::Sender::new(first.stores.clone()),
            key_sets: watch::Sender::new(first.key_sets()),
        }
    }

    /// Sends the parts of `now`, the new running snapshot, to every subscriber.
    pub(super) fn send(&self, now: &Snapshot) {
        self.health.send_replace(now.health.clone());
        self.resolved.send_replace(now.resolved.clone());
        self.acme.send_replace(now.acme.clone());
        self.counter_stores.send_replace(now.stores.clone());
        self.key_sets.send_replace(now.key_sets());
    }

    /// Subscribes to the plan of health checks: the backends that are probed, and their settings.
    pub fn health_plan(&self) -> watch::Receiver<HealthPlan> {
        self.health.subscribe()
    }

    /// Subscribes to the addresses that the names of backends resolve to.
    pub fn resolved(&self) -> watch::Receiver<Arc<ResolvedAddresses>> {
        self.resolved.subscribe()
    }

    /// Subscribes to the plan of certificates to obtain by ACME.
    pub fn acme_plan(&self) -> watch::Receiver<Arc<AcmePlan>> {
        self.acme.subscribe()
    }

    /// Subscribes to the list of shared stores that count requests for rate limits.
    pub fn counter_stores(&self) -> watch::Receiver<Vec<Arc<rate_limit::Store>>> {
        self.counter_stores.subscribe()
    }

    /// Subscribes to the issuers' key sets that must be fetched.
    pub fn key_sets(&self) -> watch::Receiver<Arc<Vec<Arc<KeySet>>>> {
        self.key_sets.subscribe()
    }
}
