//! One request's state, from its first phase to its last. Each field says which phase writes it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use prometheus::IntGauge;

use crate::live::{Route, Snapshot};
use crate::policy::rate_limit::Quota;
use crate::telemetry::Phase;
use crate::telemetry::handles::RouteMetrics;
use crate::telemetry::timeline::{Timeline, Way};
use crate::upstream::{Arm, Attempt, BackendState, Draw};

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
    /// Which share of the route's requests it belongs to. (`request_filter`)
    pub draw: Draw,
    /// Whether the client has yet to be told that share. (`request_filter`)
    pub draw_is_new: bool,
    /// When its last byte had been passed on, for the first time. (`request_body_filter`)
    pub sent: Option<Instant>,
    /// The client's quota; `None` without a rate limit. (`request_filter`)
    pub quota: Option<Quota>,
    /// Whether a backend was looked for. (`proxy_upstream_filter`)
    pub sought: bool,
    /// The attempt that is under way, or the last one. (`proxy_upstream_filter`, `upstream_peer`)
    pub attempt: Option<Attempt>,
    /// How many attempts there were. (`upstream_peer`)
    pub attempts: u32,
    /// Backends that failed. (`fail_to_connect`, `error_while_proxy`)
    pub failed: Vec<Arc<BackendState>>,
    /// When the response's head was there. (`response_filter`)
    pub responded: Option<Instant>,
    /// When it came to which phase; `None` where nobody can ask. (every phase that has something to tell)
    pub timeline: Option<Timeline>,
    /// What went wrong, in one word. (whoever replies)
    pub error: Option<&'static str>,
    /// Counts it as active until it is dropped, even by a panic. (`new_ctx`)
    _active: Active,
}

impl RequestCtx {
    /// The state of a request whose head has just been read; `timed`: with a timeline.
    pub fn new(snapshot: Arc<Snapshot>, active: &IntGauge, timed: bool) -> Self {
        RequestCtx {
            started: Instant::now(),
            snapshot,
            id: HeaderValue::from_static(""),
            client: None,
            route: None,
            sent: None,
            draw: Draw::default(),
            draw_is_new: false,
            quota: None,
            sought: false,
            attempt: None,
            attempts: 0,
            failed: Vec::new(),
            responded: None,
            timeline: timed.then(Timeline::default),
            error: None,
            _active: Active::begin(active),
        }
    }

    /// Has it take `route` and, where several tags share that, the share of one.
    pub fn take(&mut self, route: Arc<Route>, headers: &HeaderMap) {
        if route.split.is_shared() {
            let known = route.known_draw(headers);
            self.draw_is_new = known.is_none() && route.split_cookie.is_some();
            self.draw = known.unwrap_or_else(|| route.split.draw());
        }
        self.route = Some(route);
    }

    /// The tag whose backends get it.
    pub fn arm(&self) -> Option<&Arm> {
        self.route.as_ref().map(|route| route.split.arm(self.draw))
    }

    /// Where it was sent.
    pub fn way(&self) -> Way<'_> {
        let Some(route) = &self.route else { return Way::default() };
        Way { virtual_host: &route.domain, route: &route.name, tag: &route.split.arm(self.draw).tag }
    }

    /// Notes that it has come to `phase`.
    pub fn reached(&mut self, phase: Phase) {
        if let Some(timeline) = &mut self.timeline {
            timeline.mark(phase, self.started.elapsed());
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
        self.sought = true;
        self.attempt = self.arm().and_then(|arm| arm.pool.begin_attempt(&self.failed));
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
