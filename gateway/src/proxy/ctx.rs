//! One request's state, from its first phase to its last. Each field says which phase writes it.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use prometheus::IntGauge;

use crate::config::Paths;
use crate::downstream::request_limit::UnfinishedRequest;
use crate::grpc::Call;
use crate::live::{Route, Snapshot};
use crate::policy::auth::Identity;
use crate::policy::body_limit::Arrival;
use crate::policy::compression::Encoder;
use crate::policy::cors::Cors;
use crate::policy::rate_limit::Quota;
use crate::policy::security_headers::SecurityHeaders;
use crate::telemetry::Phase;
use crate::telemetry::handles::RouteMetrics;
use crate::telemetry::timeline::{Timeline, Way};
use crate::upstream::{
    Attempt, BackendState, MirrorCopy, NoBackend, Outcome, Pool, Selection, SplitBucket, WeightedPool,
};
use crate::websocket::{TunnelStats, Upgrade};

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
    /// Whether the client came by HTTPS, to the gateway or to a trusted proxy in front of it.
    /// (`early_request_filter`)
    pub is_https: bool,
    /// What is particular about it as a call of gRPC; `None` where it is none. (`early_request_filter`, and every
    /// phase in which something passes by)
    pub grpc: Option<Box<Call>>,
    /// The route that it takes; `None` where none does. (`request_filter`)
    pub route: Option<Arc<Route>>,
    /// Its path, where that is not both compared and sent as the client has written it. (`request_filter`)
    pub paths: Option<Box<Paths>>,
    /// The path that the backend gets to see, where the route makes another one of it. (`request_filter`)
    pub rewritten: Option<String>,
    /// Which share of the route's requests it belongs to. (`request_filter`)
    pub draw: SplitBucket,
    /// Whether the client has yet to be told that share. (`request_filter`)
    pub draw_is_new: bool,
    /// When it had been let through. (`request_filter`)
    pub admitted: Option<Instant>,
    /// When its last byte had been passed on, for the first time. (`request_body_filter`)
    pub sent: Option<Instant>,
    /// Who asks, where that had to be proved. (`request_filter`)
    pub identity: Option<Arc<Identity>>,
    /// The client's quota; `None` without a rate limit. (`request_filter`)
    pub quota: Option<Quota>,
    /// The mark of the backend that its client got before. (`request_filter`)
    pub sticky_id: Option<String>,
    /// Whether a backend was looked for. (`proxy_upstream_filter`)
    pub selection_started: bool,
    /// The attempt that is under way, or the last one. (`proxy_upstream_filter`, `upstream_peer`)
    pub attempt: Option<Attempt>,
    /// How many attempts there were. (`upstream_peer`)
    pub attempts: u32,
    /// Whether it asks for a WebSocket, and may have one. (`request_filter`)
    pub wants_websocket: bool,
    /// The attempt to have one. (`upstream_peer`)
    pub upgrade: Option<Arc<Upgrade>>,
    /// Whether one of them met a kept connection at its end, and another one is made that costs nothing.
    /// (`error_while_proxy`)
    pub stale_conn_retried: bool,
    /// Whether that one must be made on a new connection. (`error_while_proxy`)
    pub on_new_connection: bool,
    /// Whether the attempt has a connection that was kept from an earlier request. (`connected_to_upstream`)
    pub is_on_kept_connection: bool,
    /// Whether responses are inspected on it, where it speaks HTTP/1. (`connected_to_upstream`)
    pub is_inspected: bool,
    /// Backends whose attempt came to nothing. (`fail_to_connect`, `error_while_proxy`, `upstream_response_filter`)
    pub failed: Vec<Arc<BackendState>>,
    /// Its body, as it comes. (`upstream_request_filter`, `request_body_filter`)
    pub body_progress: Option<Arrival>,
    /// A copy for the mirror, whose body is passing by. (`upstream_request_filter`)
    pub copy: Option<MirrorCopy>,
    /// Whether a copy has been sent. (`request_body_filter`)
    pub mirrored: bool,
    /// When the response's head was there. (`response_filter`)
    pub responded: Option<Instant>,
    /// Whether that is all of it, whatever follows. (`response_filter`)
    pub has_no_content: bool,
    /// Its connection to the backend, as long as it may be for the gateway to end it with the answer.
    /// (`connected_to_upstream`, `response_filter`)
    pub backend_socket: Option<RawFd>,
    /// That the response began before the request was whole; `None` where it did not. (`response_filter`)
    pub early: Option<EarlyAnswer>,
    /// That the response is over and the request is not, over HTTP/2. (`response_filter`, `response_body_filter`)
    pub left_open: Option<UnfinishedRequest>,
    /// What compresses the response; `None`: it passes as it is. (`response_filter`)
    pub encoder: Option<Encoder>,
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
            is_https: false,
            grpc: None,
            route: None,
            paths: None,
            rewritten: None,
            admitted: None,
            sent: None,
            draw: SplitBucket::default(),
            draw_is_new: false,
            identity: None,
            quota: None,
            sticky_id: None,
            selection_started: false,
            attempt: None,
            attempts: 0,
            wants_websocket: false,
            upgrade: None,
            stale_conn_retried: false,
            on_new_connection: false,
            is_on_kept_connection: false,
            is_inspected: false,
            failed: Vec::new(),
            body_progress: None,
            copy: None,
            mirrored: false,
            responded: None,
            has_no_content: false,
            backend_socket: None,
            early: None,
            left_open: None,
            encoder: None,
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
        self.sticky_id = route.sticky_id(headers).map(str::to_owned);
        self.route = Some(route);
    }

    /// The tag whose backends get it.
    pub fn arm(&self) -> Option<&WeightedPool> {
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

    /// How long the response may still take to begin: counted from the request's last byte, or as long as none
    /// of it has been passed on, from when it was let through. A call of gRPC says itself how long it may take.
    pub fn time_left(&self) -> Duration {
        if let Some(call) = &self.grpc {
            return call.time_left(self.started.elapsed());
        }
        let since = self.sent.or(self.admitted).unwrap_or(self.started);
        self.snapshot.request_timeout.saturating_sub(since.elapsed())
    }

    /// Whether its client has waited for longer than it wanted to: a call of gRPC with a deadline.
    pub fn is_overdue(&self) -> bool {
        self.grpc.as_ref().is_some_and(|call| call.is_overdue(self.started.elapsed()))
    }

    /// What an answer with this status says of its backend. A call of gRPC has a status of its own.
    pub fn outcome(&self, status: StatusCode) -> Outcome {
        let is_failure = match self.grpc.as_ref().and_then(|call| call.status()) {
            Some(status) => status.is_failure(),
            None => status.is_server_error(),
        };
        if is_failure { Outcome::Failure } else { Outcome::Success }
    }

    /// Where it is counted.
    pub fn metrics(&self) -> &RouteMetrics {
        self.route.as_ref().map_or(&self.snapshot.unrouted, |route| &route.metrics)
    }

    /// Gives the client the cookies that are for it: those of the auth server, and those by which it comes back to its
    /// share of the route's requests and to its backend.
    ///
    /// # Errors
    /// Where Pingora refuses a field, which it does not do for cookies.
    pub fn keep_client(&self, response: &mut ResponseHeader) -> Result<()> {
        if let Some(identity) = &self.identity {
            identity.on_response(response)?;
        }
        let Some(route) = &self.route else { return Ok(()) };
        if let Some(cookie) = route.split_cookie.as_ref().filter(|_| self.draw_is_new) {
            cookie.on_response(&self.draw.number().to_string(), self.is_https, response)?;
        }
        let mark = self.backend().map(|backend| &backend.mark);
        if let (Some(cookie), Some(mark)) = (&route.sticky_cookie, mark)
            && self.sticky_id.as_ref() != Some(mark)
        {
            cookie.on_response(mark, self.is_https, response)?;
        }
        Ok(())
    }

    /// Who may use the answer, where that is for the gateway to say.
    pub fn cors(&self) -> Option<&Cors> {
        self.route.as_ref().map_or(self.snapshot.cors.as_ref(), |route| route.cors.as_ref())
    }

    /// Which fields tell the client's browser to be careful.
    pub fn security_headers(&self) -> &SecurityHeaders {
        self.route.as_ref().map_or(&self.snapshot.security_headers, |route| &route.security_headers)
    }

    /// The backend of the current or last attempt.
    pub fn backend(&self) -> Option<&Arc<BackendState>> {
        self.attempt.as_ref().map(Attempt::backend)
    }

    /// Begins an attempt on a backend of its route.
    ///
    /// # Errors
    /// Why there is none.
    pub fn begin_attempt(&mut self, request: &RequestHeader) -> Result<(), NoBackend> {
        self.selection_started = true;
        // The one before is over.
        self.attempt = None;
        let chosen = self.with_pool(request, |pool, wanted| pool.begin_attempt(wanted, &self.failed));
        self.attempt = Some(chosen.unwrap_or(Err(NoBackend::NoneUsable(None)))?);
        Ok(())
    }

    /// Whether there is a backend for another attempt.
    pub fn has_backend_left(&self, request: &RequestHeader) -> bool {
        self.with_pool(request, |pool, wanted| pool.next(wanted).is_some()).unwrap_or(false)
    }

    /// The pool that the request is for, and what it wants of it.
    fn with_pool<R>(
        &self,
        request: &RequestHeader,
        ask: impl FnOnce(&Pool, &Selection<'_>) -> R,
    ) -> Option<R> {
        let (route, arm) = (self.route.as_ref()?, self.arm()?);
        let mut room = [0; 16];
        let wanted = route.wanted(request, self.client, self.sticky_id.as_deref(), &mut room);
        Some(ask(&arm.pool, &wanted))
    }

    /// Notes that the attempt under way has come to nothing, and what that says of its backend.
    pub fn attempt_ended(&mut self, outcome: Outcome) {
        self.record(outcome);
        self.failed.extend(self.backend().cloned());
    }

    /// Returns true where there may be another attempt that counts as none: the first one has not reached a backend. A
    /// request has one such attempt.
    pub fn takes_free_retry(&mut self) -> bool {
        !std::mem::replace(&mut self.stale_conn_retried, true)
    }

    /// Whether there may be another attempt. If so, it is taken from the budget.
    pub fn takes_retry(&self) -> bool {
        let (Some(route), Some(arm)) = (&self.route, self.arm()) else { return false };
        let paid = self.attempts - u32::from(self.stale_conn_retried);
        if !route.retry.allows_another(paid) || self.time_left().is_zero() {
            return false;
        }
        let is_left = arm.pool.budget.take(&route.retry);
        if !is_left {
            route.metrics.retries_refused.inc();
        }
        is_left
    }

    /// The pause before another attempt.
    pub fn backoff(&self) -> Duration {
        let pause = self.route.as_ref().map_or(Duration::ZERO, |route| route.retry.backoff(self.attempts));
        pause.min(self.time_left())
    }

    /// Whether it has been answered, whole, before it was whole itself: what is left of it is for nobody.
    pub fn is_answered_early(&self) -> bool {
        self.early.is_some_and(|early| early.is_over)
    }

    /// What has passed through its tunnel, where it has become one.
    pub fn tunnel(&self) -> Option<TunnelStats> {
        self.upgrade.as_ref().map(|upgrade| upgrade.passed()).filter(|passed| passed.ending.is_some())
    }

    /// Tells the backend's circuit how the attempt went. Only the first time counts.
    pub fn record(&mut self, outcome: Outcome) {
        if let (Some(route), Some(attempt)) = (&self.route, &mut self.attempt) {
            attempt.record(outcome, &route.breaker);
        }
    }
}

/// An answer that began before its request was whole.
#[derive(Clone, Copy, Debug)]
pub struct EarlyAnswer {
    /// Whether the backend was asked whether it wants a body, and has answered without saying so.
    pub is_refusal: bool,
    /// Whether all of it is here.
    pub is_over: bool,
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
