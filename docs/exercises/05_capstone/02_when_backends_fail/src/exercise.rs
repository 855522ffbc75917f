//! # When backends fail
//!
//! Now a pool has health checks, circuit breakers and a budget of retries: `health.rs`, `breaker.rs` and `pool.rs`
//! are finished. What is missing is the proxy that tells them what happened, and asks them what to do.
//!
//! An *attempt* is one try to have a backend answer. `Pool::begin_attempt` chooses a backend that is healthy and
//! whose circuit is not open, and avoids those in `failed`. Each attempt must get an outcome, unless the client
//! ended it: `RequestCtx::record(true)` or `record(false)`. A response with 5xx is a failure, too.
//!
//! A failed request may be retried after a failure to connect, with any method. After sending, it may be retried
//! only if the backend failed (`ErrorSource::Upstream`), if the method is idempotent, if Pingora still has the
//! whole body, and if no part of a response has been sent to the client: otherwise the client would get the
//! beginning of one response and the end of another. `RequestCtx::takes_retry` bounds the retries of the request
//! and of the pool. It takes from the pool's budget, so ask it last.
//!
//! **Your task**: write `takes_retry`, and the phases with a TODO.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;

use crate::connection;
use crate::live::Live;
use crate::pool::{Attempt, Backend};
use crate::route::{Route, Snapshot};

/// Gateway: the implementation of Pingora's proxy trait.
pub struct Gateway {
    live: Arc<Live>,
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
}

impl Gateway {
    /// Returns a gateway with the configuration that `live` holds.
    pub fn new(live: Arc<Live>) -> Gateway {
        Gateway { live }
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
        // TODO: `policy.retry_attempts` bounds the attempts of a request, including the first one. And has the
        // pool's budget (`pool.budget`) a retry left?
        false
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { snapshot: self.live.load(), route: None, attempt: None, failed: Vec::new() }
    }

    /// Finds the route, and prepares the client's connection.
    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<bool> {
        connection::settle(session);
        ctx.route = ctx.snapshot.find(session.req_header().uri.path());
        Ok(false)
    }

    /// Returns the peer for the next attempt. Pingora calls this function again for each retry.
    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let route = ctx.route.as_ref().or_err(HTTPStatus(404), "no route matches")?;
        // TODO: pay the pool's budget for a new request (`budget.request()`), but not for a retry. The attempt must
        // know which backends have failed already, and `ctx` keeps the attempt. Without a backend: status 503.
        let attempt = route.pool.begin_attempt(&[]).or_err(HTTPStatus(501), "no backend is usable")?;
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
        // TODO: what does this tell about the backend, and may the request be retried?
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
        _session: &mut Session,
        mut error: Box<Error>,
        _ctx: &mut RequestCtx,
        _client_reused: bool,
    ) -> Box<Error> {
        // TODO: what does this tell about the backend, and may the request be retried? For now, the answer is no.
        error.set_retry(false);
        error
    }

    /// Prepares the response's head for the client.
    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        // TODO: the attempt has its outcome here, unless the response is informational (1xx).
        ctx.record(response.status.is_success());
        Ok(())
    }
}
