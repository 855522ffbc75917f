//! Active health checks, as a background service. Each backend has one task for each different kind of probe, even if
//! the backend is in many pools.

mod probe;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use probe::Probe;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::connection::HttpConnector;
use super::{BackendState, PeerSettings};
use crate::config::HealthCheck;

/// Backends to probe, with the settings of their probes.
#[derive(Clone, Default)]
pub struct HealthPlan {
    checks: Vec<Check>,
}

/// A backend to probe, with the settings of the probe.
#[derive(Clone)]
struct Check {
    backend: Arc<BackendState>,
    config: Arc<HealthCheck>,
    peers: Arc<PeerSettings>,
}

impl Check {
    /// Returns true if `other` describes the same probe.
    fn is_same(&self, other: &Check) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
            && (Arc::ptr_eq(&self.config, &other.config) || self.config == other.config)
            && self.peers.connects_as(&other.peers)
    }
}

impl HealthPlan {
    /// Adds probes of `backend` with the settings in `config`, over connections with the settings in `peers`. A
    /// backend that is not probed counts as healthy.
    pub fn add(&mut self, backend: &Arc<BackendState>, config: &Arc<HealthCheck>, peers: &Arc<PeerSettings>) {
        if config.enabled {
            self.checks.push(Check {
                backend: backend.clone(),
                config: config.clone(),
                peers: peers.clone(),
            });
        }
    }

    /// Returns the checks without duplicates, grouped by the memory address of the backend. A backend's address does
    /// not change.
    fn by_backend(self) -> HashMap<usize, Vec<Check>> {
        let mut checks: HashMap<usize, Vec<Check>> = HashMap::new();
        for check in self.checks {
            let of_backend = checks.entry(Arc::as_ptr(&check.backend).addr()).or_default();
            if !of_backend.iter().any(|known| known.is_same(&check)) {
                of_backend.push(check);
            }
        }
        checks
    }
}

/// Background service that probes the backends of the current plan until the server stops.
pub struct HealthChecker {
    plan: watch::Receiver<HealthPlan>,
    connector: Arc<HttpConnector>,
}

impl HealthChecker {
    /// Returns a checker that follows `plan`. `connector` makes its connections; no client's request uses them.
    pub fn new(plan: watch::Receiver<HealthPlan>, connector: Arc<HttpConnector>) -> Self {
        HealthChecker { plan, connector }
    }
}

#[async_trait]
impl BackgroundService for HealthChecker {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut plan = self.plan.clone();
        let mut watches = Watches { connector: self.connector.clone(), running: HashMap::new() };
        loop {
            let current = plan.borrow_and_update().clone();
            watches.follow(current);
            tokio::select! {
                changed = plan.changed() => if changed.is_err() { return },
                _ = shutdown.changed() => return,
            }
        }
    }
}

/// Running tasks that probe backends. A task ends when its [`Watch`] is dropped.
struct Watches {
    connector: Arc<HttpConnector>,
    /// Tasks by the memory address of the backend.
    running: HashMap<usize, Vec<Watch>>,
}

struct Watch {
    check: Check,
    _task: AbortOnDropHandle<()>,
}

impl Watches {
    /// Starts and ends tasks so that they match `plan`. A task continues if its check was in the previous plan too.
    fn follow(&mut self, plan: HealthPlan) {
        let mut before = std::mem::take(&mut self.running);
        for (place, checks) in plan.by_backend() {
            let mut known = before.remove(&place).unwrap_or_default();
            let watches = checks.into_iter().map(|check| {
                match known.iter().position(|watch| watch.check.is_same(&check)) {
                    Some(index) => known.swap_remove(index),
                    None => self.begin(check),
                }
            });
            self.running.insert(place, watches.collect());
        }
    }

    fn begin(&self, check: Check) -> Watch {
        let belief = HealthState::new(&check);
        let task = tokio::spawn(watch_backend(check.clone(), belief, self.connector.clone()));
        Watch { check, _task: AbortOnDropHandle::new(task) }
    }
}

async fn watch_backend(check: Check, mut belief: HealthState, connector: Arc<HttpConnector>) {
    let limit = check.config.timeout_secs.duration();
    let probe = Probe::new(&check.config, &check.backend, &check.peers);
    loop {
        // The timeouts of a connection apply to each read. Without a timeout for the whole probe, a backend that sends
        // slowly would block it for ever.
        let outcome = match timeout(limit, probe.send(&connector)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {limit:?}")),
        };
        belief.learn(outcome);
        // Random intervals, so that backends whose probes began together are not always probed together.
        let jitter = 0.9 + fastrand::f64() / 5.0;
        tokio::time::sleep(check.config.interval_secs.duration().mul_f64(jitter)).await;
    }
}

/// Health of a backend according to one kind of probe. When the state is dropped, its result no longer counts.
struct HealthState {
    backend: Arc<BackendState>,
    thresholds: Thresholds,
    slow_start: Duration,
    healthy: bool,
    streak: Streak,
}

impl HealthState {
    /// Returns a state that begins with the backend's current health, because this kind of probe has no result yet.
    fn new(check: &Check) -> Self {
        let config = &check.config;
        let healthy = check.backend.is_healthy();
        if !healthy {
            check.backend.set_failing(true, Duration::ZERO);
        }
        HealthState {
            backend: check.backend.clone(),
            thresholds: Thresholds {
                unhealthy: config.unhealthy_threshold,
                healthy: config.healthy_threshold,
            },
            slow_start: Duration::from_secs(config.slow_start_secs.into()),
            healthy,
            streak: Streak::default(),
        }
    }

    /// Counts the outcome of a probe. Changes the health if enough consecutive outcomes contradict it.
    fn learn(&mut self, outcome: Result<(), String>) {
        let backend = &self.backend;
        match &outcome {
            Ok(()) => backend.metrics.probes_passed.inc(),
            Err(_) => backend.metrics.probes_failed.inc(),
        }
        if !self.streak.turns(self.healthy, outcome.is_ok(), self.thresholds) {
            return;
        }
        self.healthy = !self.healthy;
        if !backend.set_failing(!self.healthy, self.slow_start) {
            // Another kind of probe fails too, so the health of the backend has not changed.
            return;
        }
        let (backend, address) = (&backend.name, &backend.endpoint);
        match outcome {
            Ok(()) => info!(backend, %address, "backend is healthy again"),
            Err(error) => warn!(backend, %address, error, "backend is unhealthy"),
        }
    }
}

impl Drop for HealthState {
    fn drop(&mut self) {
        if !self.healthy {
            self.backend.set_failing(false, Duration::ZERO);
        }
    }
}

/// Number of consecutive failures, and of consecutive successes, after which the health changes.
#[derive(Clone, Copy)]
struct Thresholds {
    unhealthy: NonZeroU32,
    healthy: NonZeroU32,
}

/// Number of consecutive results that contradict the current health.
#[derive(Default)]
struct Streak(u32);

impl Streak {
    /// Counts a result. Returns true if the health changes.
    fn turns(&mut self, healthy: bool, passed: bool, thresholds: Thresholds) -> bool {
        if healthy == passed {
            self.0 = 0;
            return false;
        }
        self.0 += 1;
        let threshold = if healthy { thresholds.unhealthy } else { thresholds.healthy };
        let turns = self.0 >= threshold.get();
        if turns {
            self.0 = 0;
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Upstream;
    use crate::telemetry::Metrics;
    use crate::upstream::backend::tests::backend;

    fn believe(results: &[bool]) -> Vec<bool> {
        let three = NonZeroU32::MIN.saturating_add(2);
        let two = NonZeroU32::MIN.saturating_add(1);
        let thresholds = Thresholds { unhealthy: three, healthy: two };
        let mut streak = Streak::default();
        let mut healthy = true;
        results
            .iter()
            .map(|passed| {
                healthy ^= streak.turns(healthy, *passed, thresholds);
                healthy
            })
            .collect()
    }

    #[test]
    fn health_changes_only_after_consecutive_results() {
        let (pass, fail) = (true, false);
        assert_eq!(believe(&[fail, fail, fail, pass, pass]), [true, true, false, false, true]);
        assert_eq!(believe(&[fail, fail, pass, fail, fail]), [true; 5], "a pass breaks the row");
        assert_eq!(believe(&[fail, fail, fail, pass, fail, pass])[3..], [false; 3], "and so does a failure");
    }

    #[test]
    fn probe_result_lasts_while_backend_is_probed() {
        let metrics = Metrics::new().unwrap();
        let backend = backend(&metrics, "a");
        let config = HealthCheck { unhealthy_threshold: NonZeroU32::MIN, ..HealthCheck::default() };
        let peers = PeerSettings::new(&Upstream::default()).unwrap();
        let check = Check { backend: backend.clone(), config: config.into(), peers: peers.into() };
        let mut first = HealthState::new(&check);
        first.learn(Err("no".to_owned()));
        assert!(!backend.is_healthy());
        let second = HealthState::new(&check);
        drop(first);
        assert!(!backend.is_healthy(), "another probe begins with what was believed");
        drop(second);
        assert!(backend.is_healthy(), "nobody would ever find out that it is well again");
    }

    #[test]
    fn a_backend_in_many_pools_is_probed_once_for_each_table() {
        let metrics = Metrics::new().unwrap();
        let (a, b) = (backend(&metrics, "a"), backend(&metrics, "b"));
        let peers = Arc::new(PeerSettings::new(&Upstream::default()).unwrap());
        let tls = Upstream { tls: true, ..Upstream::default() };
        let over_tls = Arc::new(PeerSettings::new(&tls).unwrap());
        let config = Arc::new(HealthCheck::default());
        let other = Arc::new(HealthCheck { path: Some("/up".to_owned()), ..HealthCheck::default() });
        let off = Arc::new(HealthCheck { enabled: false, ..HealthCheck::default() });
        let mut plan = HealthPlan::default();
        for config in [&config, &Arc::new(HealthCheck::default()), &other, &off] {
            plan.add(&a, config, &peers);
        }
        plan.add(&a, &config, &over_tls);
        plan.add(&b, &off, &peers);
        let checks = plan.by_backend();
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[&Arc::as_ptr(&a).addr()].len(), 3);
    }
}
