//! Whether a request is let through, and which route it takes: everything that may be said about it before a backend
//! is looked for.

use std::sync::Arc;

use http::Version;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::downstream::{session, stream};
use crate::live::Route;
use crate::policy::auth::{Auth, AuthRequest, Checked};
use crate::policy::rate_limit::{RateLimitSubject, Windows};
use crate::policy::{Verdict, content_length, cors, hygiene};
use crate::proxy::ctx::RequestCtx;
use crate::proxy::errors;
use crate::reply::{Problem, Reply};
use crate::{route, websocket};

/// Whether it is a request that anybody may be asked about; where not, the answer.
pub fn inspect(session: &Session) -> Verdict {
    match stream::refusal(session) {
        Some(refusal) => Verdict::Reply(errors::refused(refusal)),
        None => hygiene::check(session.req_header()),
    }
}

/// How a request ends that is not let through.
enum Ending {
    /// It is answered here.
    Answered(Box<Reply>),
    /// Nobody is there any more to be answered.
    Left,
}

impl From<Box<Reply>> for Ending {
    fn from(reply: Box<Reply>) -> Self {
        Ending::Answered(reply)
    }
}

/// Finds the route and asks the policies that may refuse, each in its turn.
///
/// # Errors
/// Where the client has left meanwhile.
pub async fn admit(session: &mut Session, ctx: &mut RequestCtx) -> Result<Verdict> {
    match ask_each(session, ctx).await {
        Ok(()) => Ok(Verdict::Continue(())),
        Err(Ending::Answered(reply)) => Ok(Verdict::Reply(*reply)),
        Err(Ending::Left) => Err(errors::client_left()),
    }
}

/// The order is part of what is promised: what costs little refuses before what costs much, an address is looked at
/// before a password, and who asks is known before anything else is said.
async fn ask_each(session: &mut Session, ctx: &mut RequestCtx) -> Result<(), Ending> {
    let (route, preflight) = find_route(session, ctx)?;
    route.head_size.check(session.req_header()).passed()?;
    content_length::check(&session.req_header().headers).passed()?;
    route.body_limit.check(&session.req_header().headers).passed()?;
    access(&route, ctx).passed()?;
    preflight.passed()?;
    route.to_https(session.req_header(), ctx.is_https).passed()?;
    client_certificate(&route, session).passed()?;
    let limiter = route.rate_limit.as_ref();
    if let Some(windows) = limiter.and_then(|limiter| limiter.on_arrival.as_ref()) {
        count(windows, session.req_header(), ctx).await.passed()?;
    }
    if let Some(auth) = &route.auth {
        authenticate(auth, session, ctx).await?;
    }
    if let Some(windows) = limiter.and_then(|limiter| limiter.by_claim.as_ref()) {
        count(windows, session.req_header(), ctx).await.passed()?;
    }
    route.to_elsewhere(session.req_header(), ctx.paths.as_deref(), ctx.is_https).passed()?;
    ctx.rewritten = route.rewritten(session.req_header(), ctx.paths.as_deref()).passed()?;
    grpc(&route, session.req_header(), ctx).passed()?;
    websocket(&route, session, ctx).passed()?;
    Ok(())
}

/// The route, and whether the request is no more than a browser's question whether it may send another one (a
/// preflight). That is asked of the route of the request that is meant, and before anybody asks who the client is:
/// browsers send nothing along that would say so.
fn find_route(session: &Session, ctx: &mut RequestCtx) -> Result<(Arc<Route>, Verdict), Box<Reply>> {
    let request = session.req_header();
    let server_name = session::handshake(session).and_then(|handshake| handshake.server_name.as_deref());
    if let Some(method) = cors::asks_for(&request.method, &request.headers) {
        let mut meant = request.clone();
        meant.set_method(method.clone());
        let route = route::find(&ctx.snapshot.hosts, &meant, server_name).passed()?.target.clone();
        if let Some(answer) = route.cors.as_ref().map(|cors| cors.answer(&method, &request.headers)) {
            ctx.take(route.clone(), &request.headers);
            return Ok((route, Verdict::Reply(answer)));
        }
    }
    let found = route::find(&ctx.snapshot.hosts, request, server_name).passed()?;
    let route = found.target.clone();
    ctx.paths = found.paths;
    ctx.take(route.clone(), &request.headers);
    Ok((route, Verdict::Continue(())))
}

fn client_certificate(route: &Route, session: &Session) -> Verdict {
    let policy = route.entrance.client_certificate.as_ref();
    policy.map_or(Verdict::Continue(()), |policy| policy.check(session::handshake(session)))
}

/// Whether the client may come from its address.
fn access(route: &Route, ctx: &RequestCtx) -> Verdict {
    let verdict = route.access.as_ref().map_or(Verdict::Continue(()), |access| access.check(ctx.client));
    if let Verdict::Reply(reply) = &verdict {
        ctx.metrics().refusals.refused(reply.reason());
    }
    verdict
}

/// Whether the client has requests left. This may wait: for a store that several gateways share.
async fn count(windows: &Windows, request: &RequestHeader, ctx: &mut RequestCtx) -> Verdict {
    let checked = {
        let identity = ctx.identity.as_ref();
        let claim = |name: &str| identity?.claim(name);
        windows.check(
            &RateLimitSubject { address: ctx.client, headers: &request.headers, claim: &claim },
            ctx.started,
        )
    };
    match checked.verdict().await {
        Verdict::Continue(quota) => {
            ctx.quota = Some(match ctx.quota.take() {
                Some(before) => before.and(&quota),
                None => quota,
            });
            Verdict::Continue(())
        }
        Verdict::Reply(reply) => Verdict::Reply(reply),
    }
}

/// Who asks. This may wait: for a password to be hashed, for an issuer's keys, for another server; but not for the sake
/// of a client that has left.
async fn authenticate(auth: &Auth, session: &mut Session, ctx: &mut RequestCtx) -> Result<(), Ending> {
    let request = session.req_header();
    let host = route::authority(request).ok().flatten();
    // As the backend will get it: whoever decides must not read another path than was routed.
    let path = ctx.paths.as_ref().map_or(request.uri.path(), |paths| &paths.sent);
    let asked = AuthRequest { request, path, client: ctx.client, is_https: ctx.is_https, host, id: &ctx.id };
    let verdict = match auth.check(&asked) {
        Checked::AtOnce(verdict) => verdict,
        Checked::Later(mut verdict) => tokio::select! {
            verdict = &mut verdict => verdict,
            () = session::left(session) => return Err(Ending::Left),
        },
    };
    if let Verdict::Reply(reply) = &verdict {
        ctx.metrics().refusals.refused(reply.reason());
    }
    ctx.identity = Some(verdict.passed()?);
    Ok(())
}

/// Whether a call of gRPC could ever have an outcome.
fn grpc(route: &Route, request: &RequestHeader, ctx: &RequestCtx) -> Verdict {
    let needs_http2 = ctx.grpc.as_ref().is_some_and(|call| call.needs_http2());
    if needs_http2 && (route.peers.is_http1() || request.version != Version::HTTP_2) {
        // Over HTTP/1 Pingora passes no trailers on, and the outcome stands there.
        let detail = "gRPC needs HTTP/2 from the client to the backend (upstream.protocol)";
        return Verdict::Reply(Reply::new(Problem::UnsupportedMediaType, detail));
    }
    Verdict::Continue(())
}

/// Whether a WebSocket is asked for, in a way that can become one.
fn websocket(route: &Route, session: &Session, ctx: &mut RequestCtx) -> Verdict {
    let is_asked_for = stream::websocket(session).is_some() && websocket::is_asked_for(session.req_header());
    ctx.wants_websocket = is_asked_for && !route.peers.is_http2();
    if is_asked_for && stream::has_pipelined_data(session) {
        return Verdict::Reply(errors::ahead_of_upgrade());
    }
    Verdict::Continue(())
}

/// Does wrong on purpose, where the route says so.
pub async fn inject_fault(ctx: &RequestCtx) -> Verdict {
    let Some(fault) = ctx.route.as_ref().and_then(|route| route.fault.as_ref()) else {
        return Verdict::Continue(());
    };
    if let Some(delay) = fault.delay(fastrand::u8(..100)) {
        ctx.metrics().faults_delayed.inc();
        tokio::time::sleep(delay).await;
    }
    match fault.abort(fastrand::u8(..100)) {
        Some(reply) => {
            ctx.metrics().faults_aborted.inc();
            Verdict::Reply(reply)
        }
        None => Verdict::Continue(()),
    }
}
