//! # Telemetry and drain
//!
//! Operators see a gateway through its metrics and its log. Each request must be there once, however it ended:
//! with a response of a backend, with a local reply, with an error, or because the client left. A status from
//! before the client left does not exist; nginx writes 499 then, and so does this gateway. Labels of metrics must
//! be few: the route, and not the path, because clients choose the path.
//!
//! When the process is told to stop, it *drains*: `drain.rs` waits until `Telemetry::in_flight` is 0, and then
//! ends the process. A client whose response is still in flight would send its next request on the same connection,
//! which is about to close. So each response during the drain must say `Connection: close`.
//!
//! **Your task**: write `logging`, count the request as active from its first phase until its end, and let
//! responses end the connection while the process shuts down. `telemetry.rs` has the metrics.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use pingora::proxy::FailToProxy;

use crate::connection;
use crate::live::Live;
use crate::pool::{Attempt, Backend};
use crate::rate_limit::RateLimiter;
use crate::reply::Reply;
use crate::route::{Route, Snapshot};
use crate::telemetry::Telemetry;

/// Status in metrics and logs if the client left before its response, as in nginx.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Gateway: the implementation of Pingora's proxy trait.
pub struct Gateway {
    live: Arc<Live>,
    limiter: RateLimiter,
    /// Metrics, which the process shows, and by which a drain knows its end.
    pub telemetry: Arc<Telemetry>,
}

/// State of one request, which its phases share.
pub struct RequestCtx {
    /// Configuration that applies to the request until its end.
    snapshot: Arc<Snapshot>,
    /// Route of the request; `None` if the gateway has not found one.
    route: Option<Arc<Route>>,
    /// Current attempt or else the last one; `None` if there was none.
    attempt: Option<Attempt>,
    /// Backend of each attempt that has failed.
    failed: Vec<Arc<Backend>>,
    // TODO: what must be known at the end of a request, and what must end with it?
}

impl Gateway {
    /// Returns a gateway with the configuration that `live` holds.
    pub fn new(live: Arc<Live>, telemetry: Arc<Telemetry>) -> Gateway {
        Gateway { live, limiter: RateLimiter::default(), telemetry }
    }

    /// Runs the checks that come before a backend is chosen. Returns the reply of the first one that refuses.
    fn admit(&self, session: &Session, ctx: &mut RequestCtx) -> std::result::Result<(), Reply> {
        let (request, policy) = (session.req_header(), &ctx.snapshot.config.policy);
        ctx.route = ctx.snapshot.find(request.uri.path());
        if ctx.route.is_none() {
            return Err(Reply::new(404, "no route matches"));
        }
        if request.headers.contains_key("Transfer-Encoding") {
            return Err(Reply::new(411, "a body needs a Content-Length"));
        }
        let length = request.headers.get("Content-Length");
        let length = length.map_or(Some(0), |length| length.to_str().ok()?.parse().ok());
        if length.is_none_or(|length: u64| length > policy.max_request_body_bytes) {
            return Err(Reply::new(413, "the body is too long, or its length is not a number"));
        }
        let Some(client) = connection::client_address(session) else { return Ok(()) };
        self.limiter.check(client, policy, Instant::now())
    }
}

impl RequestCtx {
    /// Records the outcome of the current attempt.
    fn record(&mut self, success: bool) {
        let Some(attempt) = &mut self.attempt else { return };
        attempt.record(success, &self.snapshot.config.policy);
        if !success {
            self.failed.push(attempt.backend.clone());
        }
    }

    /// Returns true if another attempt is allowed, and takes it from the budget.
    fn takes_retry(&self) -> bool {
        let is_left = self.failed.len() < self.snapshot.config.policy.retry_attempts;
        is_left && self.route.as_ref().is_some_and(|route| route.pool.budget.take())
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { snapshot: self.live.load(), route: None, attempt: None, failed: Vec::new() }
    }

    /// Admits the request or replies to it. Returns true if it has replied.
    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        connection::settle(session);
        match self.admit(session, ctx) {
            Ok(()) => Ok(false),
            Err(reply) => reply.send(session).await.map(|()| true),
        }
    }

    /// Returns the peer for the next attempt. Pingora calls this function again for each retry.
    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let route = ctx.route.as_ref().or_err(InternalError, "a request without a route was admitted")?;
        if ctx.failed.is_empty() {
            route.pool.budget.request();
        }
        ctx.attempt = route.pool.begin_attempt(&ctx.failed);
        let attempt = ctx.attempt.as_ref().or_err(HTTPStatus(503), "no backend is usable")?;
        Ok(connection::peer(attempt.backend.address))
    }

    /// Handles a failure to connect to the backend. Nothing was sent, so any method may be retried.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        ctx.record(false);
        error.set_retry(ctx.takes_retry());
        error
    }

    /// Prepares the request for the backend, right before it is sent.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        connection::forward(session, request)
    }

    /// Handles a connection that broke after it was made. The backend may have acted on the request already.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestCtx,
        _client_reused: bool,
    ) -> Box<Error> {
        let by_backend = *error.esource() == ErrorSource::Upstream;
        if by_backend {
            ctx.record(false);
        }
        let may_resend = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && session.response_written().is_none();
        error.set_retry(by_backend && may_resend && ctx.takes_retry());
        error
    }

    /// Prepares the response's head for the client.
    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        // TODO: while the process shuts down, the client must not send another request on this connection.
        if !response.status.is_informational() {
            ctx.record(!response.status.is_server_error());
        }
        Ok(())
    }

    /// Replies to a request that has finally failed.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        _ctx: &mut RequestCtx,
    ) -> FailToProxy {
        let error_code = Reply::send_for_error(error, session).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Counts and logs the request at its end, whether it succeeded or failed.
    async fn logging(&self, _session: &mut Session, _error: Option<&Error>, _ctx: &mut RequestCtx) {
        // TODO: count the request with `self.telemetry.record`. If it has no route, the label is "none". Then log
        // it with `tracing::info!(target: "access", …)`, with the fields method, path, status, duration_ms,
        // backend and failed_attempts.
    }
}
