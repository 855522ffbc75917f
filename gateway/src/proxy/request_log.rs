//! Record of finished requests. Each request is counted in the metrics and written to the access log, and its timeline
//! is kept until newer ones replace it.

use std::sync::Arc;
use std::time::Duration;

use http::header;
use pingora::Error;
use pingora::proxy::Session;

use crate::downstream::{session, stream};
use crate::proxy::ctx::RequestCtx;
use crate::telemetry::record::Record;
use crate::telemetry::{AccessLog, Metrics, Timelines};
use crate::upstream::Outcome;

/// Status that logs and metrics show if the client left before its response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Destinations for the records of finished requests.
pub struct RequestLog {
    /// Metrics of the gateway.
    pub metrics: Arc<Metrics>,
    /// Access log with a line for each request; `None` if the log is off.
    pub access_log: Option<AccessLog>,
    /// Timelines of recent requests; `None` if they are not kept.
    pub timelines: Option<Arc<Timelines>>,
}

impl RequestLog {
    /// Returns true if the phases of requests must be recorded.
    pub fn records_phases(&self) -> bool {
        self.timelines.is_some() || self.access_log.as_ref().is_some_and(AccessLog::shows_phases)
    }

    /// Records a finished request. `error` is the reason if the request ended without its complete response.
    pub fn enter(&self, session: &Session, error: Option<&Error>, ctx: &mut RequestCtx) {
        let duration = ctx.started_at.elapsed();
        let status = session::final_response(session).map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        if error.is_none() && ctx.responded_at.is_some() {
            let answer = session::final_response(session);
            ctx.record(answer.map_or(Outcome::Failure, |status| ctx.outcome(status)));
        }
        let status = ctx.grpc.as_ref().map_or(status, |call| call.http_status(status));
        self.count(status, duration, ctx);
        if self.access_log.is_some() || self.timelines.is_some() {
            self.write(session, status, duration, ctx);
        }
    }

    fn count(&self, status: u16, duration: Duration, ctx: &RequestCtx) {
        let metrics = ctx.metrics();
        self.metrics.response(metrics, status);
        let responded = ctx.responded_at.map_or(duration, |at| at.duration_since(ctx.started_at));
        metrics.latency.observe(responded.as_secs_f64());
        if let Some(tag) = ctx
            .weighted_pool()
            .filter(|_| ctx.selection_started)
            .and_then(|weighted_pool| weighted_pool.metrics.as_ref())
        {
            tag.response(status, responded.as_secs_f64());
        }
        if let Some(call) = &ctx.grpc {
            metrics.grpc.ended(call.status());
        }
        if ctx.tunnel().is_none() {
            // The lifetime of a tunnel depends on the client, so it says nothing about speed.
            metrics.duration_ms.observe(duration.as_secs_f64() * 1000.0);
        }
    }

    fn write(&self, session: &Session, status: u16, duration: Duration, ctx: &RequestCtx) {
        let tunnel = ctx.tunnel();
        let request = session.req_header();
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let record = Record {
            method: request.method.as_str(),
            host: request.uri.host().or(host).unwrap_or("-"),
            path: if stream::is_substituted(session) { "-" } else { request.uri.path() },
            status,
            grpc_status: ctx.grpc.as_ref().and_then(|call| call.status()).map(|status| status.code()),
            duration,
            request_id: ctx.id.to_str().unwrap_or_default(),
            client: ctx.client,
            user: ctx
                .identity
                .as_ref()
                .map(|identity| identity.name.as_str())
                .filter(|name| !name.is_empty()),
            backend: ctx.backend().map(|backend| backend.name.as_str()),
            bytes: tunnel.map_or(session.body_bytes_sent() as u64, |passed| passed.sent),
            bytes_received: tunnel.map_or(session.body_bytes_read() as u64, |passed| passed.received),
            attempts: ctx.attempts,
            error: ctx.error.or_else(|| tunnel?.ending?.error()),
            way: ctx.way(),
            request,
            tls: session.digest().and_then(|digest| digest.ssl_digest.as_deref()),
            server_name: session::handshake(session).and_then(|handshake| handshake.server_name.as_deref()),
            timeline: ctx.timeline.as_ref(),
        };
        if let Some(access_log) = &self.access_log {
            access_log.write(&record);
        }
        if let (Some(timelines), Some(timeline)) = (&self.timelines, &ctx.timeline) {
            timelines.keep(&record, timeline);
        }
    }
}
