//! One request's state, from its first phase to its last. Each field says which phase writes it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use prometheus::IntGauge;

use crate::live::{Route, Snapshot};
use crate::policy::rate_limit::Quota;
use crate::telemetry::metrics::RouteMetrics;
use crate::upstream::{Attempt, BackendState};

/// What is known about a request.
pub struct RequestCtx {
    /// When its head had been read. (`new_ctx`)
    pub started: Instant,
    /// The configuration that holds for it to its end. (`new_ctx`)
    pub snapshot: Arc<Snapshot>,
    /// The id under which it can be found again. (`early_request_filter`)
    pub id: HeaderValue,
    /// Who asks. (`early_request_filter`)
    pub client: Option<IpAddr>,
    /// The route that it takes; `None` where none does. (`request_filter`)
    pub route: Option<Arc<Route>>,
    /// When its last byte had been passed on, for the first time. (`request_body_filter`)
    pub sent: Option<Instant>,
    /// The client's quota; `None` without a rate limit. (`request_filter`)
    pub quota: Option<Quota>,
    /// The attempt that is under way, or the last one. (`proxy_upstream_filter`, `upstream_peer`)
    pub attempt: Option<Attempt>,
    /// How many attempts there were. (`upstream_peer`)
    pub attempts: u32,
    /// Backends that failed. (`fail_to_connect`, `error_while_proxy`)
    pub failed: Vec<Arc<BackendState>>,
    /// When the response's head was there. (`response_filter`)
    pub responded: Option<Instant>,
    /// What went wrong, in one word. (whoever replies)
    pub error: Option<&'static str>,
    /// Counts it as active until it is dropped, even by a panic. (`new_ctx`)
    _active: Active,
}

impl RequestCtx {
    /// The state of a request whose head has just been read.
    pub fn new(snapshot: Arc<Snapshot>, active: &IntGauge) -> Self {
        RequestCtx {
            started: Instant::now(),
            snapshot,
            id: HeaderValue::from_static(""),
            client: None,
            route: None,
            sent: None,
            quota: None,
            attempt: None,
            attempts: 0,
            failed: Vec::new(),
            responded: None,
            error: None,
            _active: Active::begin(active),
        }
    }

    /// How long the response may still take to begin.
    pub fn time_left(&self) -> Duration {
        let waited = self.sent.map_or(Duration::ZERO, |sent| sent.elapsed());
        self.snapshot.request_timeout.saturating_sub(waited)
    }

    /// Where it is counted.
    pub fn metrics(&self) -> &RouteMetrics {
        self.route.as_ref().map_or(&self.snapshot.unrouted, |route| &route.metrics)
    }

    /// The backend of the current or last attempt.
    pub fn backend(&self) -> Option<&Arc<BackendState>> {
        self.attempt.as_ref().map(Attempt::backend)
    }

    /// Begins an attempt on a backend of its route; false where none is usable.
    pub fn begin_attempt(&mut self) -> bool {
        self.attempt = self.route.as_ref().and_then(|route| route.pool.begin_attempt(&self.failed));
        self.attempt.is_some()
    }

    /// Notes that the attempt under way has failed; whether there may be another.
    pub fn attempt_failed(&mut self) -> bool {
        self.failed.extend(self.backend().cloned());
        let attempts = self.route.as_ref().map_or(0, |route| route.attempts);
        self.attempts < attempts && !self.time_left().is_zero()
    }
}

struct Active(IntGauge);

impl Active {
    fn begin(gauge: &IntGauge) -> Self {
        gauge.inc();
        Active(gauge.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}
