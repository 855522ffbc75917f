//! Whether a request is let through, and which route it takes: everything that may be said about it before a backend
//! is looked for.

use http::Version;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::client;
use crate::ctx::RequestCtx;
use crate::downstream;
use crate::failure;
use crate::live::Route;
use crate::policy::{Verdict, content_length, hygiene};
use crate::reply::{Problem, Reply};
use crate::route;
use crate::websocket;

/// Whether it is a request that anybody may be asked about; where not, the answer.
pub fn inspect(session: &Session) -> Verdict {
    match client::refusal(session) {
        Some(refusal) => Verdict::Reply(failure::refused(refusal)),
        None => hygiene::check(session.req_header()),
    }
}

/// Finds the route and asks the policies that may refuse, each in its turn.
pub fn admit(session: &Session, ctx: &mut RequestCtx) -> Verdict {
    let (request, handshake) = (session.req_header(), downstream::handshake(session));
    let server_name = handshake.and_then(|handshake| handshake.server_name.as_deref());
    let route = match route::find(&ctx.snapshot.hosts, request, server_name) {
        Verdict::Continue(route) => route.clone(),
        Verdict::Reply(reply) => return Verdict::Reply(reply),
    };
    ctx.take(route.clone(), &request.headers);
    if let Verdict::Reply(reply) = route.head_size.check(request) {
        return Verdict::Reply(reply);
    }
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
    if let Some(limiter) = &route.rate_limit {
        match limiter.check(ctx.client, ctx.started) {
            Verdict::Continue(quota) => ctx.quota = Some(quota),
            Verdict::Reply(reply) => {
                ctx.metrics().rate_limited.inc();
                return Verdict::Reply(reply);
            }
        }
    }
    if let Some(target) = &route.redirect {
        return Verdict::Reply(Reply::redirect(target.clone()));
    }
    let verdict = grpc(&route, request, ctx);
    if let Verdict::Reply(_) = verdict {
        return verdict;
    }
    websocket(&route, session, ctx)
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
    let is_asked_for = client::websocket(session).is_some() && websocket::is_asked_for(session.req_header());
    ctx.wants_websocket = is_asked_for && !route.peers.is_http2();
    if is_asked_for && client::is_ahead(session) {
        return Verdict::Reply(failure::ahead_of_upgrade());
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
