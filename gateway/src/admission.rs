//! Whether a request is let through, and which route it takes: everything that may be said about it before a backend
//! is looked for.

use std::sync::Arc;

use http::Version;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::ctx::RequestCtx;
use crate::deadline;
use crate::downstream;
use crate::failure;
use crate::live::Route;
use crate::policy::rate_limit::{Asker, Windows};
use crate::policy::{Verdict, content_length};
use crate::reply::{Problem, Reply};
use crate::route;
use crate::websocket;

/// Finds the route and asks the policies that may refuse, each in its turn.
pub async fn admit(session: &mut Session, ctx: &mut RequestCtx) -> Verdict {
    let route = match enter(session, ctx) {
        Verdict::Continue(route) => route,
        Verdict::Reply(reply) => return Verdict::Reply(reply),
    };
    let limiter = route.rate_limit.as_ref();
    // Before anything that costs more than it does, such as the check of a password.
    if let Some(windows) = limiter.and_then(|limiter| limiter.on_arrival.as_ref())
        && let Verdict::Reply(reply) = count(windows, session.req_header(), ctx).await
    {
        return Verdict::Reply(reply);
    }
    if let Some(windows) = limiter.and_then(|limiter| limiter.by_claim.as_ref())
        && let Verdict::Reply(reply) = count(windows, session.req_header(), ctx).await
    {
        return Verdict::Reply(reply);
    }
    if let Some(target) = &route.redirect {
        return Verdict::Reply(Reply::redirect(target.clone()));
    }
    let verdict = grpc(&route, session.req_header(), ctx);
    if let Verdict::Reply(_) = verdict {
        return verdict;
    }
    websocket(&route, session, ctx)
}

/// The route, where the request may take it as it came.
fn enter(session: &Session, ctx: &mut RequestCtx) -> Verdict<Arc<Route>> {
    let (request, handshake) = (session.req_header(), downstream::handshake(session));
    let server_name = handshake.and_then(|handshake| handshake.server_name.as_deref());
    let route = match route::find(&ctx.snapshot.hosts, request, server_name) {
        Verdict::Continue(route) => route.clone(),
        Verdict::Reply(reply) => return Verdict::Reply(reply),
    };
    ctx.take(route.clone(), &request.headers);
    if let Verdict::Reply(reply) = content_length::check(&request.headers) {
        return Verdict::Reply(reply);
    }
    if let Some(https_redirect) = &route.entrance.https_redirect {
        let host = route::authority(request).ok().flatten();
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        if let Verdict::Reply(reply) = https_redirect.check(ctx.is_https, host, target) {
            return Verdict::Reply(reply);
        }
    }
    if let Some(policy) = &route.entrance.client_certificate
        && let Verdict::Reply(reply) = policy.check(handshake)
    {
        return Verdict::Reply(reply);
    }
    Verdict::Continue(route)
}

/// Whether the client has requests left.
async fn count(windows: &Windows, request: &RequestHeader, ctx: &mut RequestCtx) -> Verdict {
    let checked = {
        // Nobody is asked for a token yet: without a claim, windows by claim go by the address.
        let claim = |_: &str| None;
        let asker = Asker { address: ctx.client, headers: &request.headers, claim: &claim };
        windows.check(&asker, ctx.started)
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
    let client = deadline::websocket(session).filter(|_| websocket::is_asked_for(session.req_header()));
    ctx.wants_websocket = client.is_some() && !route.peers.is_http2();
    match client {
        Some(client) if client.is_ahead() => Verdict::Reply(failure::ahead_of_upgrade()),
        _ => Verdict::Continue(()),
    }
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
