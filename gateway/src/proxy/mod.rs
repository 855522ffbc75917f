//! Life of a request, phase by phase, in the order in which Pingora runs the phases. Read this file from top to bottom.

pub mod admission;
pub mod ctx;
pub mod early_response;
pub mod errors;
pub mod request_body;
pub mod request_log;
pub mod respond;
mod reuse;
mod tunnel;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::*;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyWarnLogContext};
use pingora::upstreams::peer::H1UpgradePolicy;
use tokio::sync::watch;
use tracing::debug;

use self::ctx::RequestCtx;
use self::request_log::RequestLog;
use crate::downstream::{read_deadline, request_limit, session, stream};
use crate::drain::Drain;
use crate::grpc::Call;
use crate::live::Store;
use crate::policy::forwarded::{self, ForwardedClient};
use crate::policy::{Verdict, connection_login, cookie_crumbs, hygiene, request_id, rewrite};
use crate::reply::Reply;
use crate::route;
use crate::telemetry::{Limit, Phase};
use crate::tls::acme::Challenges;
use crate::upstream::connection::{self, BackendConnector, HttpConnector};
use crate::upstream::{
    Attempt, MirrorCopy, Mirrors, Outcome, PeerOptions, check_address, explain_in_log, response_check, retry,
};
use crate::util::status::is_interim;

/// Gateway: the implementation of Pingora's proxy trait.
pub struct Gateway {
    parts: GatewayDeps,
    mirrors: Mirrors,
}

/// Dependencies of the gateway.
pub struct GatewayDeps {
    /// Store of the running configuration.
    pub live: Arc<Store>,
    /// Log and metrics of finished requests.
    pub request_log: RequestLog,
    /// Challenges by which ACME servers validate host names.
    pub challenges: Arc<Challenges>,
    /// Drain state. After a hand-over, clients must connect again, to the process that serves now.
    pub drain: Drain,
    /// Signal that becomes true when this process stops.
    pub stopping: watch::Receiver<bool>,
    /// Connector for connections to backends.
    pub connector: BackendConnector,
    /// Connector for requests that the gateway makes itself.
    pub own_connector: Arc<HttpConnector>,
}

impl Gateway {
    /// Creates a gateway with the given dependencies.
    pub fn new(parts: GatewayDeps) -> Self {
        Gateway { mirrors: Mirrors::new(parts.own_connector.clone()), parts }
    }

    /// Returns the reply to a request for the gateway itself; `None` for any other request. On any host, an ACME server
    /// may ask for a challenge, and a reader of a local reply may ask for the explanation of its problem.
    fn own_reply(&self, session: &Session, ctx: &RequestCtx) -> Option<Reply> {
        let request = session.req_header();
        self.parts.challenges.answer(request).or_else(|| ctx.snapshot.problem_page(request))
    }

    /// Handles the end of a request's body. After it, the gateway waits for the backend's response.
    fn request_sent(&self, session: &Session, ctx: &mut RequestCtx) {
        self.mirror(ctx);
        // If the backend has responded before it had the whole body, no response head is awaited.
        if ctx.responded_at.is_none() {
            let now = Instant::now();
            ctx.sent_at.get_or_insert(now);
            if ctx.grpc.is_none() {
                read_deadline::arm(session, now, ctx.time_left(now));
            }
        }
    }

    /// Counts the limit that a client has exceeded; `None` counts nothing.
    fn met(&self, limit: Option<Limit>) {
        limit.iter().for_each(|limit| self.parts.request_log.metrics.limits.counter(*limit).inc());
    }

    /// Sends the copy of the request to the mirror, if there is a copy.
    fn mirror(&self, ctx: &mut RequestCtx) {
        let mirror = ctx.route.as_ref().and_then(|route| Some((&route.metrics, route.mirror.as_ref()?)));
        if let (Some((metrics, mirror)), Some(copy)) = (mirror, ctx.copy.take()) {
            self.mirrors.send(copy, mirror, ctx.snapshot.proxy.request_timeout, &metrics.mirror);
            ctx.mirrored = true;
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// State of a request. It is boxed, because Pingora moves it several times for each request.
    type CTX = Box<RequestCtx>;

    // ANCHOR: arrival
    // ANCHOR: new_ctx
    /// Creates the context of a request whose head has been read. The request keeps this snapshot until its end.
    fn new_ctx(&self) -> Self::CTX {
        Box::new(RequestCtx::new(
            self.parts.live.load(),
            &self.parts.request_log.metrics.requests_active,
            self.parts.request_log.records_phases(),
        ))
    }
    // ANCHOR_END: new_ctx

    /// Installs no module, because Pingora's default would install one for compression.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    // ANCHOR: early_request_filter
    /// Resolves the client's address, assigns the request id, and sets the timeouts of the connection.
    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<()> {
        let proxy = &ctx.snapshot.proxy;
        session::settle(session, proxy.max_requests_per_connection, proxy.min_send_rate.timeout);
        hygiene::simplify_lists(session.req_header_mut())?;
        request_limit::request_started(session);
        let peer = session::peer_address(session);
        let headers = &session.req_header().headers;
        let origin = forwarded::origin(peer, headers, &proxy.trusted_proxies, proxy.trusted_field);
        ctx.client = origin.address;
        ctx.is_https = origin.is_https.unwrap_or_else(|| session::handshake(session).is_some());
        ctx.id = request_id::generate();
        ctx.grpc = Call::of(&session.req_header().headers);
        Ok(())
    }
    // ANCHOR_END: early_request_filter

    // ANCHOR: request_filter
    /// Admits the request or replies to it. Returns true if it has replied.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        let mut verdict = Ok(admission::inspect(session));
        if let Ok(Verdict::Reply(reply)) = &verdict {
            reply.reason().into_iter().for_each(|reason| self.parts.request_log.metrics.refused(reason));
        } else {
            verdict = match self.own_reply(session, ctx) {
                Some(answer) => Ok(Verdict::Reply(answer)),
                None => admission::admit(session, ctx).await,
            };
        }
        ctx.metrics().request(&session.req_header().method);
        let mut verdict = verdict?;
        if let Verdict::Continue(()) = verdict {
            verdict = admission::inject_fault(ctx).await;
        }
        ctx.admitted_at = Some(Instant::now());
        ctx.reached(Phase::RequestFilter);
        match verdict {
            Verdict::Continue(()) => Ok(false),
            Verdict::Reply(reply) => {
                self.met(errors::limit_of_reply(&reply));
                respond::send(reply, session, ctx).await.map(|()| true)
            }
        }
    }
    // ANCHOR_END: request_filter
    // ANCHOR_END: arrival

    // ANCHOR: where_to
    // ANCHOR: proxy_upstream_filter
    /// Chooses a backend, or replies if none can be chosen. `upstream_peer` would be too late for this reply: after an
    /// error there, Pingora closes the client's connection.
    async fn proxy_upstream_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        if let Some(weighted_pool) = ctx.weighted_pool() {
            weighted_pool.pool.budget.request(ctx.started_at);
        }
        match ctx.begin_attempt(session.req_header()) {
            Ok(()) => Ok(true),
            Err(refusal) => respond::send(errors::no_backend(refusal), session, ctx).await.map(|()| false),
        }
    }
    // ANCHOR_END: proxy_upstream_filter

    // ANCHOR: next_attempt
    /// Returns the peer for the next attempt. Pingora calls this function again for each retry.
    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        let retrying = ctx.attempts > 0;
        ctx.attempts += 1;
        // A request whose reused connection had just been closed tries a new connection without a pause.
        let mut fresh = std::mem::take(&mut ctx.on_new_connection);
        if retrying {
            ctx.metrics().retries.inc();
            if !fresh {
                tokio::time::sleep(ctx.backoff()).await;
            }
            ctx.begin_attempt(session.req_header()).map_err(errors::no_backend_left)?;
        }
        ctx.reached(Phase::UpstreamPeer);
        // ANCHOR_END: next_attempt
        // ANCHOR: peer
        match (&ctx.route, ctx.backend()) {
            (Some(route), Some(backend)) => {
                let timed = read_deadline::disarm(session) && ctx.grpc.is_none();
                let is_stream = ctx.grpc.is_some() || session::wants_events(&session.req_header().headers);
                // A tunnel must not share its connection. An attempt that tests a backend needs a new connection,
                // because a reused connection shows nothing about the backend.
                fresh |= ctx.wants_websocket || ctx.attempt.as_ref().is_some_and(Attempt::is_trial);
                let pooling = reuse::pooling(session, backend, fresh);
                let left = ctx.time_left(Instant::now());
                let occasion = PeerOptions { left, timed, pooling, is_stream, is_inspected: true };
                let mut peer = route.peers.peer(backend, occasion)?;
                if ctx.wants_websocket {
                    return Ok(tunnel::intercept(peer, session, ctx, &self.parts));
                }
                peer.options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
                Ok(peer)
            }
            _ => Error::e_explain(InternalError, "a request without a route came to upstream_peer"),
        }
        // ANCHOR_END: peer
    }

    // ANCHOR: fail_to_connect
    /// Handles a failure to connect to the backend. Nothing was sent, so another backend may be tried with any method.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(backend) = ctx.backend() {
            backend.metrics.connection_errors.inc();
        }
        ctx.reached(Phase::FailToConnect);
        if errors::is_other_version(&error) {
            ctx.backend().inspect(|backend| backend.set_speaks_http1(false));
            error.set_retry(ctx.takes_free_retry() || ctx.takes_retry());
            return error;
        }
        if *error.etype() == InvalidCert
            && let Some(backend) = ctx.backend()
        {
            explain_in_log(backend, peer);
        }
        if errors::is_timeout(&error) && ctx.is_overdue() {
            // The client's deadline was short; this does not mean that the backend is slow.
            return errors::deadline_exceeded();
        }
        ctx.attempt_ended(Outcome::Failure);
        error.set_retry(ctx.takes_retry());
        error
    }
    // ANCHOR_END: fail_to_connect
    // ANCHOR_END: where_to

    /// Handles a connection to the backend, which is either new or reused (`reused`).
    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        socket: RawFd,
        digest: Option<&Digest>,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if let Some(backend) = ctx.backend().filter(|_| !reused) {
            backend.metrics.connections.inc();
        }
        ctx.backend_socket = Some(socket);
        ctx.is_on_reused_connection = reused;
        ctx.is_inspected = connection::is_inspected(peer) || ctx.upgrade.is_some();
        connection::ReadSize::set(digest, request_limit::open_streams(session));
        ctx.reached(Phase::ConnectedToUpstream);
        check_address(digest, peer)
    }

    // ANCHOR: way_up
    /// Prepares the request for the backend, right before it is sent.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        // ANCHOR: http_version
        let speaks_http2 = request.version == Version::HTTP_2;
        let must_be_http2 = ctx.route.as_ref().is_some_and(|route| route.peers.is_http2())
            || ctx.grpc.as_ref().is_some_and(|call| call.needs_http2());
        if must_be_http2 && !speaks_http2 {
            return Err(errors::no_http2());
        }
        if !speaks_http2 && !ctx.is_inspected {
            // The next attempt uses a connection on which responses are inspected.
            ctx.backend().inspect(|backend| backend.set_speaks_http1(true));
            return Err(errors::speaks_http1());
        }
        if !speaks_http2 && session.req_header().version == Version::HTTP_2 {
            cookie_crumbs::join(request)?;
        }
        if let Some(call) = &mut ctx.grpc {
            call.on_request(ctx.started_at.elapsed(), request)?;
        }
        // ANCHOR_END: http_version
        // ANCHOR: client_fields
        hygiene::on_request(session.req_header().version, request)?;
        let host = route::authority(session.req_header()).ok().flatten();
        let is_named = host.is_none() || session.req_header().version < Version::HTTP_11;
        if is_named && !request.headers.contains_key(header::HOST) {
            // HTTP/1.1 requires a Host field, and HTTP/2 an authority. A client over HTTP/1.0 may have sent neither.
            let backend = ctx.backend().map(|backend| backend.authority());
            request.insert_header(header::HOST, host.or(backend.as_deref()).unwrap_or_default())?;
        }
        forwarded::apply(request, &ForwardedClient { address: ctx.client, is_https: ctx.is_https, host })?;
        request.insert_header(request_id::X_REQUEST_ID, &ctx.id)?;
        let (name, via) = forwarded::via(session.req_header().version);
        request.append_header(name, via)?;
        // ANCHOR_END: client_fields
        if !speaks_http2 && !ctx.wants_websocket && request.headers.contains_key(header::EXPECT) {
            // The body may arrive after the backend has refused it. The backend must not read that body as a request.
            request.insert_header(header::CONNECTION, "close")?;
        }
        // ANCHOR: policy_fields
        if let Some(identity_fields) = &ctx.snapshot.identity_fields {
            identity_fields.on_request(request);
        }
        let Some(route) = &ctx.route else { return Ok(()) };
        if let (Some(auth), Some(identity)) = (&route.auth, &ctx.identity) {
            auth.on_request(identity, request)?;
        }
        for proof in &route.foreign_proofs {
            request.remove_header(proof);
        }
        if let Some(policy) = &route.host_policies.client_certificate {
            let handshake = session::handshake(session);
            policy.on_request(handshake.and_then(|handshake| handshake.client.as_ref()), request)?;
        }
        rewrite::on_request(request, ctx.rewritten.as_deref(), ctx.paths.as_deref())?;
        route.headers.on_request(request)?;
        // ANCHOR_END: policy_fields
        // ANCHOR: copy_and_body
        let may_be_copied =
            !ctx.wants_websocket && request.method.is_idempotent() && !connection_login::is_in(request);
        if route.mirror.is_some() && !ctx.mirrored && may_be_copied {
            ctx.copy = Some(MirrorCopy::new(request));
        }
        if session.is_body_empty() {
            // Over HTTP/2, Pingora does not forward an empty body, and therefore does not report the end of the body.
            self.request_sent(session, ctx);
        } else if session::awaits_continue(session) {
            // The gateway now waits for the backend, which sends 100 (Continue) or a final response.
            let now = Instant::now();
            read_deadline::arm(session, now, ctx.time_left(now));
        } else {
            request_body::begin(session, ctx);
        }
        Ok(())
        // ANCHOR_END: copy_and_body
    }
    // ANCHOR_END: way_up

    /// Forwards a part of the request's body. After the last part, the timeout for the response's head begins.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        early_response::hold_back(ctx, body)?;
        request_body::on_data(session, ctx, body.as_ref().map_or(0, Bytes::len))?;
        if let Some(call) = &mut ctx.grpc {
            call.on_request_body(body, end_of_stream)?;
        }
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            // Pingora would write an empty part as the last chunk, and then write a last chunk again.
            *body = None;
        }
        if let (Some(copy), Some(part)) = (&mut ctx.copy, body.as_ref()) {
            copy.add(part);
        }
        // Pingora does not support request trailers, and does not report the end of a request that has trailers.
        let is_before_trailers = body.is_none() && session.req_header().version == Version::HTTP_2;
        if ctx.upgrade.is_some() && ctx.responded_at.is_some() {
            // The tunnel has ended here, and not the body of a request.
        } else if end_of_stream || is_before_trailers {
            ctx.reached(Phase::RequestBodyFilter);
            self.request_sent(session, ctx);
        } else if ctx.early.is_none() {
            // The client may have waited for 100 (Continue). The deadline for that wait ends now.
            read_deadline::disarm(session);
        }
        Ok(())
    }

    // ANCHOR: broken
    // ANCHOR: not_decided_here
    /// Handles a broken connection, or bytes that are not HTTP. The backend may have processed the request already.
    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Self::CTX,
        client_reused: bool,
    ) -> Box<Error> {
        ctx.reached(Phase::ErrorWhileProxy);
        if ctx.is_answered_early() || errors::is_retry_on_status(&error) {
            return error;
        }
        if errors::is_other_version(&error) {
            error.set_retry(ctx.takes_free_retry() || ctx.takes_retry());
            return error;
        }
        // ANCHOR_END: not_decided_here
        // ANCHOR: cause
        if *error.etype() == InvalidCert
            && let Some(backend) = ctx.backend()
        {
            explain_in_log(backend, peer);
        }
        if let (Some(fault), Some(backend)) = (errors::malformed_response(&error), ctx.backend()) {
            debug!(request_id = ?ctx.id, backend = backend.name, "a backend's response is not valid HTTP/1: {fault}");
        }
        let is_late = errors::is_timeout(&error) || read_deadline::has_passed(session);
        let is_silent = client_reused && is_late && ctx.responded_at.is_none();
        if is_silent && let Some(backend) = ctx.backend() {
            backend.idle_connections().fell_silent();
        }
        if ctx.grpc.is_some() && errors::is_timeout(&error) {
            // Silence on a stream is no failure of the backend, no matter how long it lasts.
            return if ctx.is_overdue() { errors::deadline_exceeded() } else { error };
        }
        let is_backends_turn =
            ctx.sent_at.is_some() || session.is_body_done() || session::awaits_continue(session);
        if errors::is_clients_fault(&error, is_backends_turn) {
            return errors::request_timeout();
        }
        // ANCHOR_END: cause
        // ANCHOR: sent_again
        let sent = reuse::sent(session);
        let may_resend = retry::may_resend(sent);
        // The backend has certainly or most likely not seen the request. This is no failure of the backend.
        let refused = errors::is_unprocessed(&error) && sent.body_at_hand && !sent.answered;
        let stale_conn_retried =
            may_resend && errors::is_race(&error, client_reused, ctx.responded_at.is_some());
        if (refused || stale_conn_retried) && ctx.takes_free_retry() {
            ctx.on_new_connection = true;
            error.set_retry(true);
            return error;
        }
        if refused {
            error.set_retry(ctx.takes_retry());
            return error;
        }
        let by_backend = *error.esource() == ErrorSource::Upstream;
        if is_silent {
            // Perhaps only the connection is dead, and not the backend. The next attempt uses a new connection, and
            // shows which of the two is dead.
            ctx.attempt.iter_mut().for_each(Attempt::abandon);
            ctx.on_new_connection = true;
        }
        if by_backend || read_deadline::has_passed(session) {
            ctx.attempt_ended(Outcome::Failure);
        }
        error.set_retry(by_backend && may_resend && ctx.takes_retry());
        error
        // ANCHOR_END: sent_again
    }
    // ANCHOR_END: broken

    // ANCHOR: retry_on_status
    /// Checks the head of a response. Returns an error in place of the response if the route retries on the response's
    /// status and another attempt is possible.
    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        response_check::check(response, ctx.wants_websocket, &ctx.snapshot.proxy.response_head)?;
        let status = response.status.as_u16();
        let is_listed = ctx.route.as_ref().is_some_and(|route| route.retry.is_on_status(status));
        if !is_listed || !retry::may_resend(reuse::sent(session)) {
            return Ok(());
        }
        ctx.attempt_ended(ctx.outcome(response.status));
        if ctx.has_backend_left(session.req_header()) && ctx.takes_retry() {
            return Err(errors::retry_on_status(response.status));
        }
        Ok(())
    }
    // ANCHOR_END: retry_on_status

    // ANCHOR: way_down
    // ANCHOR: interim
    /// Prepares the response's head for the client.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if is_interim(response.status) {
            if response.status == StatusCode::CONTINUE {
                request_body::awaited(session, ctx);
            }
            return Ok(());
        }
        read_deadline::disarm(session);
        ctx.has_no_content = session::has_no_content(session.req_header(), response.status);
        early_response::on_head(session, ctx, response);
        tunnel::settle(response.status, session, ctx)?;
        // ANCHOR_END: interim
        // ANCHOR: outcome
        ctx.responded_at = Some(Instant::now());
        ctx.reached(Phase::ResponseFilter);
        if let Some(call) = &mut ctx.grpc {
            call.on_response(response)?;
        }
        let outcome = ctx.outcome(response.status);
        if let (Some(route), Some(attempt)) = (&ctx.route, &mut ctx.attempt) {
            attempt.answered(outcome, &route.breaker);
            if ctx.is_on_reused_connection {
                attempt.backend().idle_connections().answered();
            }
        }
        // ANCHOR_END: outcome
        // ANCHOR: response_fields
        response.insert_header(request_id::X_REQUEST_ID, &ctx.id)?;
        let (name, via) = forwarded::via(response.version);
        response.append_header(name, via)?;
        if response.version < Version::HTTP_11 {
            // The gateway sends its own HTTP version to the client (RFC 9110 6.2), not the version of the backend.
            response.set_version(Version::HTTP_11);
        }
        if let Some(quota) = &ctx.quota {
            quota.on_response(response)?;
        }
        if let Some(route) = &ctx.route {
            route.headers.on_response(response, ctx.backend().map(|backend| backend.name.as_str()))?;
        }
        if let Some(cors) = ctx.cors() {
            cors.on_response(session.req_header().headers.get(header::ORIGIN), response)?;
        }
        ctx.keep_client(response)?;
        ctx.security_headers().on_response(ctx.is_https, response)?;
        if let Some(compression) = ctx.route.as_ref().and_then(|route| route.compression.as_ref())
            && ctx.grpc.is_none()
        {
            ctx.encoder = compression.on_response(session.req_header(), response)?;
        }
        // ANCHOR_END: response_fields
        // ANCHOR: close
        if self.parts.drain.has_begun() || session.is_process_shutting_down() {
            // The connection is about to close, so the client must not send another request on it.
            session.set_keepalive(None);
        }
        session::close_delimit_for_http10(session, response).await
        // ANCHOR_END: close
    }
    // ANCHOR_END: way_down

    /// Forwards a part of the response's body.
    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        early_response::on_data(session, ctx, end_of_stream);
        if ctx.has_no_content {
            // Over HTTP/1 Pingora does not write such a body, but over HTTP/2 it does.
            *body = None;
        }
        if let Some(encoder) = &mut ctx.encoder {
            encoder.on_body(body, end_of_stream)?;
        }
        if let Some(call) = &mut ctx.grpc {
            call.on_response_body(body);
        }
        Ok(None)
    }

    /// Forwards the trailers of a response over HTTP/2. For a gRPC call, the trailers carry the status.
    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Bytes>> {
        if response_check::check_fields(trailers, &ctx.snapshot.proxy.response_head).is_err() {
            // The body is complete, but the client must not receive malformed trailers. Pingora would end the stream
            // without an error in any case.
            trailers.clear();
        }
        early_response::on_data(session, ctx, true);
        if let Some(encoder) = &mut ctx.encoder {
            // The encoder's last bytes must be sent before the trailers. Pingora has not reported the end of the body.
            return Ok(encoder.end()?.map(Bytes::from));
        }
        ctx.grpc.as_mut().map_or(Ok(None), |call| call.on_trailers(trailers))
    }

    // ANCHOR: told
    /// Replies to a request that has finally failed, unless the client has received a response already.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Self::CTX) -> FailToProxy {
        if let Some(answer) = session::final_response(session).filter(|_| ctx.is_answered_early()) {
            ctx.record(ctx.outcome(answer));
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        self.met(errors::limit(error));
        let overdue = read_deadline::has_passed(session);
        read_deadline::disarm(session);
        let refused = stream::refusal(session).map(errors::refused);
        if let Some(reason) = refused.as_ref().and_then(Reply::reason) {
            self.parts.request_log.metrics.refused(reason);
        }
        let reply = refused.or_else(|| if overdue { Some(errors::overdue()) } else { errors::reply(error) });
        ctx.error = reply.as_ref().map_or(Some("client_closed"), Reply::reason);
        let mut error_code = 0;
        if let (None, Some(call)) = (&reply, &mut ctx.grpc) {
            call.on_cancel();
        }
        let awaits_trailers = ctx.grpc.as_ref().is_some_and(|call| call.awaits_trailers());
        let can_be_told = awaits_trailers || session::final_response(session).is_none();
        if let Some(reply) = reply.filter(|_| can_be_told) {
            error_code = reply.status();
            respond::respond_error(reply, error, session, ctx).await;
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }
    // ANCHOR_END: told

    /// Suppresses Pingora's error line in two cases. First, the error is the client's: a client could otherwise fill
    /// the log. Second, the error is a backend's, and the access log is on and shows it already. Pingora still logs
    /// errors of the gateway itself.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Self::CTX, error: &Error) -> bool {
        match error.esource() {
            ErrorSource::Downstream => true,
            ErrorSource::Upstream => self.parts.request_log.access_log.is_some(),
            ErrorSource::Internal | ErrorSource::Unset => false,
        }
    }

    /// Suppresses Pingora's warning about a retry if the access log is on, because that log shows the number of
    /// attempts.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Self::CTX,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        self.parts.request_log.access_log.is_some()
    }

    /// Counts and logs the request at its end, whether it succeeded or failed.
    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        stream::request_over(session);
        request_limit::request_finished(session);
        self.parts.request_log.enter(session, error, ctx);
        if ctx.is_answered_early() || stream::is_broken_off(session) {
            // The attempt is over: the backend gets none of the bytes that the client still sends.
            ctx.attempt = None;
            early_response::leave(session, ctx, error.is_some()).await;
        }
        early_response::linger(session, ctx).await;
    }
}
