//! One backend, as long as the process knows it: what outlives a change of the configuration is here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::telemetry::handles::BackendMetrics;

/// A backend and all that is known about it now.
pub struct BackendState {
    /// Its name in logs, metrics and answers.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its counters.
    pub metrics: BackendMetrics,
    healthy: AtomicBool,
    drained: AtomicBool,
}

impl BackendState {
    /// A backend that counts as healthy until probes say otherwise.
    pub fn new(id: String, address: SocketAddr, metrics: BackendMetrics) -> Self {
        BackendState { id, address, metrics, healthy: AtomicBool::new(true), drained: AtomicBool::new(false) }
    }

    /// Whether requests may be sent to it.
    pub fn is_usable(&self) -> bool {
        self.is_healthy() && !self.is_drained()
    }

    /// What the probes found last.
    pub fn is_healthy(&self) -> bool {
        // A request that sees the old state for a moment is retried elsewhere: no ordering is needed.
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether it gets no new requests, because somebody wants it so.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Whether it gets no new requests from now on.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// What the probes found.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
        self.metrics.health.set(healthy.into());
    }
}

/// One attempt to have a backend answer a request. It counts as in flight there until it is dropped, however the
/// request ends.
pub struct Attempt {
    backend: Arc<BackendState>,
}

impl Attempt {
    /// Begins an attempt.
    pub fn begin(backend: Arc<BackendState>) -> Self {
        backend.metrics.requests.inc();
        backend.metrics.requests_active.inc();
        Attempt { backend }
    }

    /// Which backend is asked.
    pub fn backend(&self) -> &Arc<BackendState> {
        &self.backend
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.backend.metrics.requests_active.dec();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    /// A backend to balance over, never spoken to.
    pub(in crate::upstream) fn backend(metrics: &Metrics, id: &str) -> Arc<BackendState> {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Arc::new(BackendState::new(id.to_owned(), address, metrics.backend(id)))
    }

    #[test]
    fn an_attempt_is_in_flight_until_it_is_dropped() {
        let metrics = Metrics::new().unwrap();
        let backend = backend(&metrics, "a");
        let first = Attempt::begin(backend.clone());
        let second = Attempt::begin(backend.clone());
        assert_eq!(backend.metrics.requests_active.get(), 2);
        drop(first);
        assert_eq!(backend.metrics.requests_active.get(), 1);
        drop(second);
        assert_eq!(backend.metrics.requests_active.get(), 0);
    }
}
