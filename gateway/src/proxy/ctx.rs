//! State of one request, from its first phase to its last. Each field's comment names the phase that writes the field.

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
use crate::telemetry::record::{Timeline, Way};
use crate::upstream::{
    Attempt, BackendState, MirrorCopy, NoBackend, Outcome, Pool, Selection, SplitBucket, WeightedPool,
};
use crate::util::gauge::GaugeGuard;
use crate::websocket::{TunnelStats, Upgrade};

/// State of one request.
pub struct RequestCtx {
    /// Time at which the request's head was complete. (`new_ctx`)
    pub started_at: Instant,
    /// Configuration that applies to the request until its end. (`new_ctx`)
    pub snapshot: Arc<Snapshot>,
    /// Request id, by which the request can be found in logs. (`early_request_filter`)
    pub id: HeaderValue,
    /// Address of the client. (`early_request_filter`)
    pub client: Option<IpAddr>,
    /// True if the client uses HTTPS, either to the gateway or to a trusted proxy in front of it.
    /// (`early_request_filter`)
    pub is_https: bool,
    /// State of the gRPC call; `None` for any other request. (`early_request_filter`, and each phase that passes on a
    /// part of the request or response)
    pub grpc: Option<Box<Call>>,
    /// Route of the request; `None` if the gateway has not found one. (`request_filter`)
    pub route: Option<Arc<Route>>,
    /// Path for matching and path for the backend; `None` if both are the path that the client wrote.
    /// (`request_filter`)
    pub paths: Option<Box<Paths>>,
    /// Path that the backend receives; `None` if the route does not rewrite the path. (`request_filter`)
    pub rewritten: Option<String>,
    /// Bucket of the request in the route's traffic split. (`request_filter`)
    pub draw: SplitBucket,
    /// True if the response must set a cookie with the bucket; false without such a cookie, or if the client sent it.
    /// (`request_filter`)
    pub draw_is_new: bool,
    /// Time at which the admission of the request ended; `None` before. (`request_filter`)
    pub admitted_at: Option<Instant>,
    /// Time at which the request's last byte was first passed on; `None` before. (`request_body_filter`)
    pub sent_at: Option<Instant>,
    /// Identity of the client; `None` without authentication. (`request_filter`)
    pub identity: Option<Arc<Identity>>,
    /// Rate-limit quota of the client; `None` without a rate limit. (`request_filter`)
    pub quota: Option<Quota>,
    /// Sticky id from the client's cookie, which names the backend of an earlier request. (`request_filter`)
    pub sticky_id: Option<String>,
    /// True if the gateway has tried to choose a backend. (`proxy_upstream_filter`)
    pub selection_started: bool,
    /// Current attempt or else the last one; `None` if there was none. (`proxy_upstream_filter`, `upstream_peer`)
    pub attempt: Option<Attempt>,
    /// Number of attempts so far. (`upstream_peer`)
    pub attempts: u32,
    /// True if the request asks for a WebSocket, and both of its connections may use HTTP/1. (`request_filter`)
    pub wants_websocket: bool,
    /// Upgrade to a WebSocket in the current attempt. (`upstream_peer`)
    pub upgrade: Option<Arc<Upgrade>>,
    /// True if the request has used its free retry, which counts against no limit. For example, it is used when the
    /// backend had just closed a reused connection. (`fail_to_connect`, `error_while_proxy`)
    pub stale_conn_retried: bool,
    /// True if the next attempt must use a new connection. (`error_while_proxy`)
    pub on_new_connection: bool,
    /// True if the attempt reuses a connection from an earlier request. (`connected_to_upstream`)
    pub is_on_reused_connection: bool,
    /// True if the gateway inspects HTTP/1 responses on the attempt's connection. (`connected_to_upstream`)
    pub is_inspected: bool,
    /// Backends on which an attempt of this request failed. (set in `fail_to_connect`, `error_while_proxy` and
    /// `upstream_response_filter`)
    pub failed: Vec<Arc<BackendState>>,
    /// Measured rate of the request's body. (`upstream_request_filter`, `request_body_filter`)
    pub body_progress: Option<Arrival>,
    /// Copy of the request for the mirror; the body is added part by part. (`upstream_request_filter`)
    pub copy: Option<MirrorCopy>,
    /// True if a copy has been sent to the mirror. (`request_body_filter`)
    pub mirrored: bool,
    /// Time at which the response's head arrived. (`response_filter`)
    pub responded_at: Option<Instant>,
    /// True if the response ends with its head, even if the backend sends more. (`response_filter`)
    pub has_no_content: bool,
    /// Socket of the connection to the backend; `None` if the gateway need not close it at the end of the response.
    /// (`connected_to_upstream`, `response_filter`)
    pub backend_socket: Option<RawFd>,
    /// State of an early response, which began before the request was complete; otherwise `None`. (`response_filter`)
    pub early: Option<EarlyResponse>,
    /// Time limit for the rest of an HTTP/2 request whose response is over. (`response_filter`, `response_body_filter`)
    pub left_open: Option<UnfinishedRequest>,
    /// Encoder that compresses the response; `None` if the response passes unchanged. (`response_filter`)
    pub encoder: Option<Encoder>,
    /// Times at which the request reached each phase; `None` if the management API, which shows them, is off. (each
    /// phase of the timeline)
    pub timeline: Option<Timeline>,
    /// Reason why the request failed, in one word; `None` if it did not. (each phase that sends a reply)
    pub error: Option<&'static str>,
    /// Guard that counts the request as active. (`new_ctx`)
    _active: GaugeGuard,
}

impl RequestCtx {
    /// Creates the state of a request whose head has just been read; `timed` adds a timeline.
    pub fn new(snapshot: Arc<Snapshot>, active: &IntGauge, timed: bool) -> Self {
        RequestCtx {
            started_at: Instant::now(),
            snapshot,
            id: HeaderValue::from_static(""),
            client: None,
            is_https: false,
            grpc: None,
            route: None,
            paths: None,
            rewritten: None,
            admitted_at: None,
            sent_at: None,
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
            is_on_reused_connection: false,
            is_inspected: false,
            failed: Vec::new(),
            body_progress: None,
            copy: None,
            mirrored: false,
            responded_at: None,
            has_no_content: false,
            backend_socket: None,
            early: None,
            left_open: None,
            encoder: None,
            timeline: timed.then(Timeline::default),
            error: None,
            _active: GaugeGuard::new(active.clone()),
        }
    }

    /// Assigns `route` to the request, and also a bucket if the route splits its traffic over several tags.
    pub fn take(&mut self, route: Arc<Route>, headers: &HeaderMap) {
        if route.split.is_shared() {
            let known = route.sticky_bucket(headers);
            self.draw_is_new = known.is_none() && route.split_cookie.is_some();
            self.draw = known.unwrap_or_else(|| route.split.draw());
        }
        self.sticky_id = route.sticky_id(headers).map(str::to_owned);
        self.route = Some(route);
    }

    /// Returns the pool that serves the request, with its tag.
    pub fn weighted_pool(&self) -> Option<&WeightedPool> {
        self.route.as_ref().map(|route| route.split.weighted_pool(self.draw))
    }

    /// Returns the virtual host, the route and the tag of the request.
    pub fn way(&self) -> Way<'_> {
        let Some(route) = &self.route else { return Way::default() };
        Way {
            virtual_host: &route.domain,
            route: &route.name,
            tag: &route.split.weighted_pool(self.draw).tag,
        }
    }

    /// Records the time at which the request reached `phase`.
    pub fn reached(&mut self, phase: Phase) {
        if let Some(timeline) = &mut self.timeline {
            timeline.mark(phase, self.started_at.elapsed());
        }
    }

    /// Returns the time that is left at `now` until the response must begin. The time starts at the request's last byte, or at
    /// the end of the admission while that byte has not been passed on. A gRPC call sets its own deadline.
    pub fn time_left(&self, now: Instant) -> Duration {
        if let Some(call) = &self.grpc {
            return call.time_left(now.duration_since(self.started_at));
        }
        let since = self.sent_at.or(self.admitted_at).unwrap_or(self.started_at);
        self.snapshot.proxy.request_timeout.saturating_sub(now.duration_since(since))
    }

    /// Returns true if the request is a gRPC call whose deadline has passed.
    pub fn is_overdue(&self) -> bool {
        self.grpc.as_ref().is_some_and(|call| call.is_overdue(self.started_at.elapsed()))
    }

    /// Returns the outcome of an attempt whose response has `status`. For a gRPC call, the gRPC status decides.
    pub fn outcome(&self, status: StatusCode) -> Outcome {
        let is_failure = match self.grpc.as_ref().and_then(|call| call.status()) {
            Some(status) => status.is_failure(),
            None => status.is_server_error(),
        };
        if is_failure { Outcome::Failure } else { Outcome::Success }
    }

    /// Returns the metrics in which the request is counted.
    pub fn metrics(&self) -> &RouteMetrics {
        self.route.as_ref().map_or(&self.snapshot.unrouted, |route| &route.metrics)
    }

    /// Adds cookies to the response: those of the auth server, the cookie of the traffic split and the sticky cookie.
    /// Because of the last two, the client's next request gets the same bucket and the same backend.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses a header field, which does not happen for cookies.
    pub fn keep_client(&self, response: &mut ResponseHeader) -> Result<()> {
        if let Some(identity) = &self.identity {
            identity.on_response(response)?;
        }
        let Some(route) = &self.route else { return Ok(()) };
        if let Some(cookie) = route.split_cookie.as_ref().filter(|_| self.draw_is_new) {
            cookie.on_response(&self.draw.number().to_string(), self.is_https, response)?;
        }
        let sticky_id = self.backend().map(|backend| &backend.sticky_id);
        if let (Some(cookie), Some(sticky_id)) = (&route.sticky_cookie, sticky_id)
            && self.sticky_id.as_ref() != Some(sticky_id)
        {
            cookie.on_response(sticky_id, self.is_https, response)?;
        }
        Ok(())
    }

    /// Returns the CORS policy for the request; `None` if there is none.
    pub fn cors(&self) -> Option<&Cors> {
        self.route.as_ref().map_or(self.snapshot.cors.as_ref(), |route| route.cors.as_ref())
    }

    /// Returns the security header fields for the client's browser.
    pub fn security_headers(&self) -> &SecurityHeaders {
        self.route.as_ref().map_or(&self.snapshot.security_headers, |route| &route.security_headers)
    }

    /// Returns the backend of the current or last attempt.
    pub fn backend(&self) -> Option<&Arc<BackendState>> {
        self.attempt.as_ref().map(Attempt::backend)
    }

    /// Chooses a backend of the route, and begins an attempt on it.
    ///
    /// # Errors
    /// Returns the reason if no backend can be chosen.
    pub fn begin_attempt(&mut self, request: &RequestHeader) -> Result<(), NoBackend> {
        self.selection_started = true;
        // The previous attempt is over.
        self.attempt = None;
        let chosen = self.with_pool(request, |pool, selection| pool.begin_attempt(selection, &self.failed));
        self.attempt = Some(chosen.unwrap_or(Err(NoBackend::NoneUsable(None)))?);
        Ok(())
    }

    /// Returns true if a backend is left for another attempt.
    pub fn has_backend_left(&self, request: &RequestHeader) -> bool {
        self.with_pool(request, |pool, selection| pool.next(selection).is_some()).unwrap_or(false)
    }

    /// Calls `ask` with the pool of the request, and with the criteria for a backend.
    fn with_pool<R>(
        &self,
        request: &RequestHeader,
        ask: impl FnOnce(&Pool, &Selection<'_>) -> R,
    ) -> Option<R> {
        let (route, weighted_pool) = (self.route.as_ref()?, self.weighted_pool()?);
        let mut room = [0; 16];
        let selection = route.selection(request, self.client, self.sticky_id.as_deref(), &mut room);
        Some(ask(&weighted_pool.pool, &selection))
    }

    /// Records that the current attempt has failed, and reports `outcome` to the circuit breaker of its backend.
    pub fn attempt_ended(&mut self, outcome: Outcome) {
        self.record(outcome);
        self.failed.extend(self.backend().cloned());
    }

    /// Returns true if the request's only free retry is left, and marks it as used. A free retry does not count as an
    /// attempt, because no backend has processed the request before.
    pub fn takes_free_retry(&mut self) -> bool {
        !std::mem::replace(&mut self.stale_conn_retried, true)
    }

    /// Returns true if another attempt is allowed. The attempt is then taken from the retry budget.
    pub fn takes_retry(&self) -> bool {
        let (Some(route), Some(weighted_pool)) = (&self.route, self.weighted_pool()) else { return false };
        let paid = self.attempts - u32::from(self.stale_conn_retried);
        if !route.retry.allows_another(paid) || self.time_left(Instant::now()).is_zero() {
            return false;
        }
        let is_left = weighted_pool.pool.budget.take(&route.retry);
        if !is_left {
            route.metrics.retries_refused.inc();
        }
        is_left
    }

    /// Returns the pause before the next attempt.
    pub fn backoff(&self) -> Duration {
        let pause = self.route.as_ref().map_or(Duration::ZERO, |route| route.retry.backoff(self.attempts));
        pause.min(self.time_left(Instant::now()))
    }

    /// Returns true if the response was complete before the request. Then no backend receives the rest of the request.
    pub fn is_answered_early(&self) -> bool {
        self.early.is_some_and(|early| early.is_over)
    }

    /// Returns the statistics of the request's tunnel after its end; `None` before that, or without a tunnel.
    pub fn tunnel(&self) -> Option<TunnelStats> {
        self.upgrade.as_ref().map(|upgrade| upgrade.passed()).filter(|passed| passed.ending.is_some())
    }

    /// Reports the attempt's outcome to the circuit breaker of the backend. Only the first report counts.
    pub fn record(&mut self, outcome: Outcome) {
        if let (Some(route), Some(attempt)) = (&self.route, &mut self.attempt) {
            attempt.record(outcome, &route.breaker);
        }
    }
}

/// State of an early response, which began before its request was complete.
#[derive(Clone, Copy, Debug)]
pub struct EarlyResponse {
    /// True if the client waits for 100 (Continue), and the backend has sent a final response instead.
    pub is_refusal: bool,
    /// True if the response is complete.
    pub is_over: bool,
}
