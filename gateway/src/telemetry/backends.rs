//! Metrics of backends: connections, requests, health, and circuits.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, gone};

/// Metrics of all backends.
pub struct BackendFamilies {
    connections: IntCounterVec,
    connection_errors: IntCounterVec,
    requests: IntCounterVec,
    requests_active: IntGaugeVec,
    health: IntGaugeVec,
    circuit: IntGaugeVec,
    circuit_opened: IntCounterVec,
    probes: IntCounterVec,
}

/// Metric handles of one backend.
pub struct BackendMetrics {
    /// Number of attempts to have the backend answer a request.
    pub requests: IntCounter,
    /// Number of opened connections.
    pub connections: IntCounter,
    /// Number of connections that could not be opened.
    pub connection_errors: IntCounter,
    /// Number of requests that the backend is serving now.
    pub requests_active: IntGauge,
    /// Health of the backend: 1 if it is healthy, else 0.
    pub health: IntGauge,
    /// State of the circuit breaker: 0 closed, 1 half-open, 2 open.
    pub circuit: IntGauge,
    /// Number of times that the circuit has opened.
    pub circuit_opened: IntCounter,
    /// Number of probes that passed.
    pub probes_passed: IntCounter,
    /// Number of probes that failed.
    pub probes_failed: IntCounter,
}

impl BackendFamilies {
    pub(super) fn new(new: &Families<'_>) -> prometheus::Result<Self> {
        let backend = &["backend"];
        Ok(BackendFamilies {
            requests: new.counters(
                "proxy_backend_requests_total",
                "Attempts to get a response from a backend",
                backend,
            )?,
            connections: new.counters("proxy_backend_connections_total", "Connections opened", backend)?,
            connection_errors: new.counters(
                "proxy_backend_connection_errors_total",
                "Connections that could not be opened",
                backend,
            )?,
            requests_active: new.gauges(
                "proxy_backend_requests_active",
                "Requests being served now",
                backend,
            )?,
            health: new.gauges("health_check_status", "1 if healthy, else 0", backend)?,
            circuit: new.gauges("proxy_circuit_state", "0 closed, 1 half-open, 2 open", backend)?,
            circuit_opened: new.counters(
                "proxy_circuit_opened_total",
                "How often the circuit opened",
                backend,
            )?,
            probes: new.counters("health_check_probes_total", "Probes sent", &["backend", "result"])?,
        })
    }

    /// Returns the metric handles of a backend.
    pub fn handles(&self, id: &str) -> BackendMetrics {
        BackendMetrics {
            connections: self.connections.with_label_values(&[id]),
            connection_errors: self.connection_errors.with_label_values(&[id]),
            requests: self.requests.with_label_values(&[id]),
            requests_active: self.requests_active.with_label_values(&[id]),
            health: self.health.with_label_values(&[id]),
            circuit: self.circuit.with_label_values(&[id]),
            circuit_opened: self.circuit_opened.with_label_values(&[id]),
            probes_passed: self.probes.with_label_values(&[id, "passed"]),
            probes_failed: self.probes.with_label_values(&[id, "failed"]),
        }
    }

    /// Removes the metrics of a backend that no longer exists.
    pub fn forget(&self, id: &str) {
        for counters in [&self.requests, &self.connections, &self.connection_errors, &self.circuit_opened] {
            gone(counters.remove_label_values(&[id]));
        }
        for gauges in [&self.requests_active, &self.health, &self.circuit] {
            gone(gauges.remove_label_values(&[id]));
        }
        for result in ["passed", "failed"] {
            gone(self.probes.remove_label_values(&[id, result]));
        }
    }
}
