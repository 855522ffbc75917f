//! Active health checks: each backend is probed by a task of its own, in a background service.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::lb::health_check::{HealthCheck as Probe, HttpHealthCheck, TcpHealthCheck};
use pingora::prelude::*;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::BackendState;
use crate::config::{HealthCheck, StatusSet};

/// Which backends are probed, and how.
#[derive(Clone)]
pub struct HealthPlan {
    config: HealthCheck,
    backends: Vec<Arc<BackendState>>,
}

impl HealthPlan {
    /// A plan for `backends`.
    pub fn new(config: &HealthCheck, backends: &[Arc<BackendState>]) -> Self {
        HealthPlan { config: config.clone(), backends: backends.to_vec() }
    }
}

/// Probes the backends of the current plan until the server stops.
pub struct HealthChecker {
    plan: watch::Receiver<HealthPlan>,
}

impl HealthChecker {
    /// A checker that follows `plan`.
    pub fn new(plan: watch::Receiver<HealthPlan>) -> Self {
        HealthChecker { plan }
    }
}

#[async_trait]
impl BackgroundService for HealthChecker {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut plan = self.plan.clone();
        let mut watches = Watches::default();
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

/// The tasks that probe, one a backend. They end when they are dropped.
#[derive(Default)]
struct Watches {
    config: Option<HealthCheck>,
    /// By where the backend's state is in memory, which is where it stays.
    running: HashMap<usize, (Arc<BackendState>, AbortOnDrop)>,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watches {
    /// Begins and ends tasks so that they are as `plan` says. A backend that is in the old plan and in the
    /// new one goes on being watched, unless probes themselves are to be others.
    fn follow(&mut self, plan: HealthPlan) {
        if self.config.as_ref() != Some(&plan.config) {
            self.running.clear();
        }
        let mut before = std::mem::take(&mut self.running);
        for backend in plan.backends {
            if !plan.config.enabled {
                // Nobody would ever find out that it is well again.
                backend.set_healthy(true);
                continue;
            }
            let place = Arc::as_ptr(&backend).addr();
            let task = before.remove(&place).map(|(_, task)| task).unwrap_or_else(|| {
                let task = tokio::spawn(watch_backend(plan.config.clone(), backend.clone()));
                AbortOnDrop(task.abort_handle())
            });
            self.running.insert(place, (backend, task));
        }
        self.config = Some(plan.config);
    }
}

async fn watch_backend(config: HealthCheck, backend: Arc<BackendState>) {
    let probe = pingora::lb::Backend::new(&backend.address.to_string())
        .and_then(|target| Ok((target, probe(&config, &backend)?)));
    let (target, probe) = match probe {
        Ok(made) => made,
        Err(error) => return error!(backend = backend.id, %error, "the backend cannot be probed"),
    };
    let limit = config.timeout_secs.duration();
    let thresholds = Thresholds { unhealthy: config.unhealthy_threshold, healthy: config.healthy_threshold };
    let mut streak = Streak::default();
    loop {
        // Pingora's own timeouts are per read: a backend that drips would hold a probe for ever.
        let outcome = match timeout(limit, probe.check(&target)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("{}: {}", error.etype().as_str(), error.root_cause())),
            Err(_) => Err(format!("no answer within {limit:?}")),
        };
        learn(&backend, &mut streak, thresholds, outcome);
        tokio::time::sleep(config.interval_secs.duration()).await;
    }
}

/// Counts a probe's outcome, and believes it where there have been enough.
fn learn(
    backend: &BackendState,
    streak: &mut Streak,
    thresholds: Thresholds,
    outcome: std::result::Result<(), String>,
) {
    match &outcome {
        Ok(()) => backend.metrics.probes_passed.inc(),
        Err(_) => backend.metrics.probes_failed.inc(),
    }
    let healthy = backend.is_healthy();
    if !streak.turns(healthy, outcome.is_ok(), thresholds) {
        return;
    }
    backend.set_healthy(!healthy);
    match outcome {
        Ok(()) => info!(backend = backend.id, address = %backend.address, "backend is healthy again"),
        Err(error) => {
            warn!(backend = backend.id, address = %backend.address, error, "backend is unhealthy");
        }
    }
}

/// How many results in a row change what is believed.
#[derive(Clone, Copy)]
struct Thresholds {
    unhealthy: NonZeroU32,
    healthy: NonZeroU32,
}

/// Consecutive results that contradict the current state.
#[derive(Default)]
struct Streak(u32);

impl Streak {
    /// Takes a result in; whether it is time to believe the contrary.
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

fn probe(config: &HealthCheck, backend: &BackendState) -> Result<Box<dyn Probe + Send + Sync>> {
    let limit = Some(config.timeout_secs.duration());
    let Some(path) = config.http_path() else {
        let mut probe = TcpHealthCheck::new();
        probe.peer_template.options.connection_timeout = limit;
        return Ok(probe);
    };
    let host = backend.address.to_string();
    let mut probe = HttpHealthCheck::new(&host, false);
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(2))?;
    request.insert_header("Host", &host)?;
    request.insert_header("User-Agent", "pingora-gateway health check")?;
    probe.req = request;
    probe.peer_template.options.connection_timeout = limit;
    probe.peer_template.options.read_timeout = limit;
    probe.peer_template.options.write_timeout = limit;
    probe.validator = Some(Box::new(expect(config.expected_status.clone())));
    Ok(Box::new(probe))
}

fn expect(expected: StatusSet) -> impl Fn(&ResponseHeader) -> Result<()> + Send + Sync {
    move |response| {
        let status = response.status.as_u16();
        if expected.contains(status) {
            return Ok(());
        }
        Error::e_explain(
            CustomCode("unexpected status", status),
            format!("the probe was answered with {status}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn only_results_in_a_row_turn_the_belief() {
        let (pass, fail) = (true, false);
        assert_eq!(believe(&[fail, fail, fail, pass, pass]), [true, true, false, false, true]);
        assert_eq!(believe(&[fail, fail, pass, fail, fail]), [true; 5], "a pass breaks the row");
        assert_eq!(believe(&[fail, fail, fail, pass, fail, pass])[3..], [false; 3], "and so does a failure");
    }
}
