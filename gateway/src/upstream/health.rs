//! Active health checks: each backend is probed by a task of its own, in a background service.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::lb::health_check::{HealthCheck as Probe, HttpHealthCheck, TcpHealthCheck};
use pingora::prelude::*;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::time::timeout;
use tracing::{info, warn};

use super::BackendState;
use crate::config::{HealthCheck, StatusSet};

/// Probes backends until the server stops.
pub struct HealthChecker {
    watches: Vec<Watch>,
    interval: Duration,
    timeout: Duration,
    thresholds: Thresholds,
}

struct Watch {
    backend: Arc<BackendState>,
    target: pingora::lb::Backend,
    probe: Box<dyn Probe + Send + Sync>,
}

impl HealthChecker {
    /// A checker for `backends`.
    ///
    /// # Errors
    /// Where Pingora does not take a path or an address, which validation has excluded.
    pub fn new(config: &HealthCheck, backends: &[Arc<BackendState>]) -> Result<Self> {
        let watch = |backend: &Arc<BackendState>| {
            let target = pingora::lb::Backend::new(&backend.address.to_string())?;
            Ok(Watch { backend: backend.clone(), target, probe: probe(config, backend)? })
        };
        Ok(HealthChecker {
            watches: backends.iter().map(watch).collect::<Result<_>>()?,
            interval: config.interval_secs.duration(),
            timeout: config.timeout_secs.duration(),
            thresholds: Thresholds {
                unhealthy: config.unhealthy_threshold,
                healthy: config.healthy_threshold,
            },
        })
    }

    async fn watch(&self, watch: &Watch) {
        let Watch { backend, target, probe } = watch;
        let mut streak = Streak::default();
        loop {
            // Pingora's own timeouts are per read: a backend that drips would hold a probe for ever.
            let outcome = match timeout(self.timeout, probe.check(target)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("{}: {}", error.etype().as_str(), error.root_cause())),
                Err(_) => Err(format!("no answer within {:?}", self.timeout)),
            };
            match &outcome {
                Ok(()) => backend.metrics.probes_passed.inc(),
                Err(_) => backend.metrics.probes_failed.inc(),
            }
            let healthy = backend.is_usable();
            if streak.turns(healthy, outcome.is_ok(), self.thresholds) {
                backend.set_healthy(!healthy);
                match outcome {
                    Ok(()) => {
                        info!(backend = backend.id, address = %backend.address, "backend is healthy again")
                    }
                    Err(error) => {
                        warn!(backend = backend.id, address = %backend.address, error, "backend is unhealthy");
                    }
                }
            }
            tokio::time::sleep(self.interval).await;
        }
    }
}

#[async_trait]
impl BackgroundService for HealthChecker {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let watches = join_all(self.watches.iter().map(|watch| self.watch(watch)));
        tokio::select! {
            _ = watches => {}
            _ = shutdown.changed() => {}
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
