//! Admission: the checks that a request passes before a backend is chosen, and the choice of its route. A request that
//! does not pass gets a local reply.

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

/// Checks that the request is well-formed HTTP, and returns a reply if it is not.
pub fn inspect(session: &Session) -> Verdict {
    match stream::refusal(session) {
        Some(refusal) => Verdict::Reply(errors::refused(refusal)),
        None => hygiene::check(session.req_header()),
    }
}

/// Reason why a request is not let through.
enum Ending {
    /// The gateway sends a local reply.
    Answered(Box<Reply>),
    /// The client has closed the connection, so no reply can be sent.
    Left,
}

impl From<Box<Reply>> for Ending {
    fn from(reply: Box<Reply>) -> Self {
        Ending::Answered(reply)
    }
}

/// Finds the route, and runs each policy that can refuse the request, in a fixed order.
///
/// # Errors
/// Returns an error if the client closes the connection meanwhile.
pub async fn admit(session: &mut Session, ctx: &mut RequestCtx) -> Result<Verdict> {
    match ask_each(session, ctx).await {
        Ok(()) => Ok(Verdict::Continue(())),
        Err(Ending::Answered(reply)) => Ok(Verdict::Reply(*reply)),
        Err(Ending::Left) => Err(errors::client_left()),
    }
}

/// Runs the checks in an order that operators can rely on. A cheap check refuses before an expensive one, the address
/// is checked before a password, and the client is authenticated before the checks that follow can reply.
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

/// Finds the route, and returns a reply if the request is a CORS preflight. With a preflight, a browser asks whether it
/// may send another request. The route of that other request answers it. The answer comes before authentication,
/// because browsers send no credentials with a preflight.
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

/// Checks the client's address against the access list of the route.
fn access(route: &Route, ctx: &RequestCtx) -> Verdict {
    let verdict = route.access.as_ref().map_or(Verdict::Continue(()), |access| access.check(ctx.client));
    if let Verdict::Reply(reply) = &verdict {
        ctx.metrics().refusals.refused(reply.reason());
    }
    verdict
}

/// Counts the request against the rate limit of the client. This may wait for a store that several gateways share.
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

/// Authenticates the client. This may wait for the hashing of a password, for the keys of an issuer, or for another
/// server. The wait ends early if the client closes the connection.
async fn authenticate(auth: &Auth, session: &mut Session, ctx: &mut RequestCtx) -> Result<(), Ending> {
    let request = session.req_header();
    let host = route::authority(request).ok().flatten();
    // The path as the backend receives it: the decision must not rest on another path than the route was chosen by.
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

/// Refuses a gRPC call if its status could not reach the client.
fn grpc(route: &Route, request: &RequestHeader, ctx: &RequestCtx) -> Verdict {
    let needs_http2 = ctx.grpc.as_ref().is_some_and(|call| call.needs_http2());
    if needs_http2 && (route.peers.is_http1() || request.version != Version::HTTP_2) {
        // Over HTTP/1, Pingora forwards no trailers, and the status of a gRPC call is in the trailers.
        let detail = "gRPC needs HTTP/2 from the client to the backend (upstream.protocol)";
        return Verdict::Reply(Reply::new(Problem::UnsupportedMediaType, detail));
    }
    Verdict::Continue(())
}

/// Records whether the request asks for a WebSocket, and refuses one that cannot become a tunnel.
fn websocket(route: &Route, session: &Session, ctx: &mut RequestCtx) -> Verdict {
    let is_asked_for = stream::websocket(session).is_some() && websocket::is_asked_for(session.req_header());
    ctx.wants_websocket = is_asked_for && !route.peers.is_http2();
    if is_asked_for && stream::has_pipelined_data(session) {
        return Verdict::Reply(errors::ahead_of_upgrade());
    }
    Verdict::Continue(())
}

/// Injects the delay or the error that the route configures for fault injection.
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
