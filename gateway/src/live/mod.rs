//! What is running: a configuration, compiled, in a place where a request gets at it without a lock; and the
//! one way in which it changes.
//!
//! A change is a new configuration, whole: it is validated ([`Config`] is always valid), compiled to a new
//! [`Snapshot`], and takes the old one's place in one step. It happens whole or not at all.

mod compile;
mod explain;
mod reload;
mod snapshot;

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::Config;
use crate::telemetry::Metrics;
use crate::upstream::HealthPlan;

pub use compile::CompileError;
pub use explain::{Explanation, explain};
pub use reload::Reloader;
pub use snapshot::{Route, Snapshot};

// ANCHOR: store
/// Holds the snapshot that new requests start with.
pub struct Store {
    current: ArcSwap<Snapshot>,
    /// What the process started with: some of it holds to its end.
    started_with: Config,
    /// Changes happen one after another.
    change: Mutex<Change>,
    metrics: Arc<Metrics>,
    health: watch::Sender<HealthPlan>,
}

/// The last change.
struct Change {
    config: Config,
    revision: u64,
}

/// What a change has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Applied {
    /// Counts the changes of this process, from 1.
    pub revision: u64,
    /// Keys whose new value holds only after a restart.
    pub after_restart: Vec<&'static str>,
}

impl Store {
    /// A store that begins with `config`.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Result<Self, CompileError> {
        let snapshot = compile::compile(&config, &metrics, None)?;
        metrics.last_reload_successful.set(1);
        let health = watch::Sender::new(HealthPlan::new(&config.health_check, &snapshot.backends));
        Ok(Store {
            current: ArcSwap::from_pointee(snapshot),
            started_with: config.clone(),
            change: Mutex::new(Change { config, revision: 1 }),
            metrics,
            health,
        })
    }

    /// The current snapshot. A request keeps it to its end, whatever comes after.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Takes over `config`, whole or not at all. When this returns, every new request starts with it.
    ///
    /// # Errors
    /// See [`CompileError`]; then everything is as it was.
    pub fn apply(&self, config: Config) -> Result<Applied, CompileError> {
        let mut change = self.change.lock();
        let before = self.load();
        let snapshot = compile::compile(&config, &self.metrics, Some(&before))?;
        self.health.send_replace(HealthPlan::new(&config.health_check, &snapshot.backends));
        let after_restart = self.started_with.needs_restart(&config);
        self.current.store(Arc::new(snapshot));
        self.forget(&before);
        change.config = config;
        change.revision += 1;
        Ok(Applied { revision: change.revision, after_restart })
    }
    // ANCHOR_END: store

    /// The configuration that runs now.
    pub fn config(&self) -> Config {
        self.change.lock().config.clone()
    }

    /// Which backends are probed, and how; it changes with the configuration.
    pub fn health_plan(&self) -> watch::Receiver<HealthPlan> {
        self.health.subscribe()
    }

    /// Ends the metrics of what was there before and is no more.
    fn forget(&self, before: &Snapshot) {
        let now = self.load();
        for (vhost, route) in before.routes.keys().filter(|key| !now.routes.contains_key(*key)) {
            self.metrics.forget_route(vhost, route);
        }
        let known: HashSet<&str> = now.backends.iter().map(|backend| backend.id.as_str()).collect();
        for backend in before.backends.iter().filter(|backend| !known.contains(backend.id.as_str())) {
            self.metrics.forget_backend(&backend.id);
        }
    }
}
