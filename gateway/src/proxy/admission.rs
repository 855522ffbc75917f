//! Admission of a request: the choice of its route, and the checks before a backend is chosen. A request that fails a
//! check gets a local reply. [`CHECKS`] lists the checks. This file provides the facts about the client that are not in
//! the head of the request.

use std::sync::Arc;

use http::{Method, Version};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::downstream::{session, stream};
use crate::live::Route;
use crate::live::checks::{self, CHECKS, ClientFact, Decision, RequestHead};
use crate::policy::auth::{Auth, AuthRequest, Checked};
use crate::policy::rate_limit::{RateLimitSubject, Windows};
use crate::policy::{Verdict, hygiene};
use crate::proxy::ctx::RequestCtx;
use crate::proxy::errors;
use crate::{route, websocket};

/// Checks that the request is well-formed HTTP. Returns a reply if it is not.
pub fn inspect(session: &Session) -> Verdict {
    match stream::refusal(session) {
        Some(refusal) => Verdict::Reply(errors::refused(refusal)),
        None => hygiene::check(session.req_header()),
    }
}

/// Finds the route, and runs the checks in the order of [`CHECKS`] until one of them refuses the request.
///
/// # Errors
/// Returns an error if the client closes the connection during a check.
pub async fn admit(session: &mut Session, ctx: &mut RequestCtx) -> Result<Verdict> {
    let (route, preflight) = match find_route(session, ctx) {
        Verdict::Continue(found) => found,
        Verdict::Reply(reply) => return Ok(Verdict::Reply(reply)),
    };
    let needs_http2 = ctx.grpc.as_ref().is_some_and(|call| call.needs_http2());
    let wants_websocket =
        stream::websocket(session).is_some() && websocket::is_asked_for(session.req_header());
    ctx.wants_websocket = wants_websocket && !route.peers.is_http2();
    for check in &CHECKS {
        let decision = (check.decide)(
            &route,
            &RequestHead {
                request: session.req_header(),
                paths: ctx.paths.as_deref(),
                is_https: ctx.is_https,
                preflight: preflight.as_ref(),
                needs_http2,
                wants_websocket,
            },
        );
        let verdict = match decision {
            Decision::Continue => Verdict::Continue(()),
            Decision::Rewrite(path) => {
                ctx.rewritten = Some(path);
                Verdict::Continue(())
            }
            Decision::Reply(reply) => Verdict::Reply(*reply),
            Decision::DependsOn(fact) => decide(fact, session, ctx).await?,
        };
        if let Verdict::Reply(reply) = verdict {
            return Ok(Verdict::Reply(reply));
        }
    }
    Ok(Verdict::Continue(()))
}

/// Finds the route of the request; for a CORS preflight, also the method for which the preflight asks permission.
fn find_route(session: &Session, ctx: &mut RequestCtx) -> Verdict<(Arc<Route>, Option<Method>)> {
    let server_name = session::handshake(session).and_then(|handshake| handshake.server_name.as_deref());
    let find = |request: &RequestHeader| route::find(&ctx.snapshot.hosts, request, server_name).passed();
    let found = checks::find_route(session.req_header(), find);
    match found.map(|(found, preflight)| (found.target.clone(), found.paths, preflight)) {
        Ok((route, paths, preflight)) => {
            ctx.paths = paths;
            ctx.take(route.clone(), &session.req_header().headers);
            Verdict::Continue((route, preflight))
        }
        Err(reply) => Verdict::Reply(*reply),
    }
}

/// Lets a policy decide with `fact`, a fact about the client of the request.
async fn decide(fact: ClientFact<'_>, session: &mut Session, ctx: &mut RequestCtx) -> Result<Verdict> {
    Ok(match fact {
        ClientFact::Address(access) => count_refusal(access.check(ctx.client), ctx),
        ClientFact::Certificate(policy) => policy.check(session::handshake(session)),
        ClientFact::Count(windows) => count(windows, session.req_header(), ctx).await,
        ClientFact::Credentials(auth) => authenticate(auth, session, ctx).await?,
        ClientFact::HttpVersion if session.req_header().version != Version::HTTP_2 => {
            Verdict::Reply(checks::without_http2())
        }
        ClientFact::PipelinedData if stream::has_pipelined_data(session) => {
            Verdict::Reply(errors::ahead_of_upgrade())
        }
        ClientFact::HttpVersion | ClientFact::PipelinedData => Verdict::Continue(()),
    })
}

/// Counts the verdict in the metrics of the route if it is a refusal.
fn count_refusal<T>(verdict: Verdict<T>, ctx: &RequestCtx) -> Verdict<T> {
    if let Verdict::Reply(reply) = &verdict {
        ctx.metrics().refusals.refused(reply.reason());
    }
    verdict
}

/// Counts the request against the client's rate limit. The count may wait for a store that several gateways share.
async fn count(windows: &Windows, request: &RequestHeader, ctx: &mut RequestCtx) -> Verdict {
    let checked = {
        let identity = ctx.identity.as_ref();
        let claim = |name: &str| identity?.claim(name);
        windows.check(
            &RateLimitSubject { address: ctx.client, headers: &request.headers, claim: &claim },
            ctx.started_at,
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

/// Authenticates the client. The check may wait for a password hash, for the keys of an issuer, or for another server.
/// The wait ends early if the client closes the connection.
async fn authenticate(auth: &Auth, session: &mut Session, ctx: &mut RequestCtx) -> Result<Verdict> {
    let request = session.req_header();
    let host = route::authority(request).ok().flatten();
    // Path that the backend receives. The decision must not use another path than the one that selected the route.
    let path = ctx.paths.as_ref().map_or(request.uri.path(), |paths| &paths.sent);
    let asked = AuthRequest { request, path, client: ctx.client, is_https: ctx.is_https, host, id: &ctx.id };
    let verdict = match auth.check(&asked) {
        Checked::AtOnce(verdict) => verdict,
        Checked::Later(mut verdict) => tokio::select! {
            verdict = &mut verdict => verdict,
            () = session::left(session) => return Err(errors::client_left()),
        },
    };
    Ok(match count_refusal(verdict, ctx) {
        Verdict::Continue(identity) => {
            ctx.identity = Some(identity);
            Verdict::Continue(())
        }
        Verdict::Reply(reply) => Verdict::Reply(reply),
    })
}

/// Injects the delay or the error that the route's fault injection demands.
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
