//! Checks of a request on its route, before a backend is chosen. [`CHECKS`] is the only list of these checks. Admission
//! (`proxy::admission`) runs the list for real requests, and [`explain`](super::explain()) runs it for requests that are
//! only described.

use std::sync::Arc;

use http::Method;
use pingora::http::RequestHeader;

use super::snapshot::Route;
use crate::config::Paths;
use crate::policy::access::Access;
use crate::policy::auth::Auth;
use crate::policy::client_certificate::ClientCertificates;
use crate::policy::rate_limit::Windows;
use crate::policy::{Verdict, content_length, cors};
use crate::reply::{Problem, Reply};
use crate::route::RouteMatch;

/// Input of the checks: the head of a request, and facts that follow from the head or the connection.
pub struct RequestHead<'r> {
    /// Head of the request.
    pub request: &'r RequestHeader,
    /// Path for matching and path for the backend; `None` if both are the path that the client sent.
    pub paths: Option<&'r Paths>,
    /// True if the client uses HTTPS.
    pub is_https: bool,
    /// Method that a browser asks permission for; `None` if the request is no CORS preflight that the gateway answers.
    pub preflight: Option<&'r Method>,
    /// True if the request is a native gRPC call; false also for gRPC-Web.
    pub needs_http2: bool,
    /// True if the request asks for a WebSocket.
    pub wants_websocket: bool,
}

/// Decision of a check.
pub enum Decision<'p> {
    /// The request passes the check.
    Continue,
    /// The request passes the check, and the backend gets this path.
    Rewrite(String),
    /// A local reply ends the request.
    Reply(Box<Reply>),
    /// The input alone does not decide: the check depends on this fact about the client.
    DependsOn(ClientFact<'p>),
}

/// A fact about the client or its connection that a check depends on, with the policy that judges the fact.
pub enum ClientFact<'p> {
    /// Address of the client.
    Address(&'p Access),
    /// Certificate of the client.
    Certificate(&'p ClientCertificates),
    /// Number of requests that the client has sent in the windows of a rate limit.
    Count(&'p Windows),
    /// Credentials of the client.
    Credentials(&'p Auth),
    /// HTTP version of the client's connection: a gRPC call needs HTTP/2.
    HttpVersion,
    /// Data that the client sends after a WebSocket request and before the response; the check refuses such data.
    PipelinedData,
}

/// A check of a request.
pub struct Check {
    /// Name of the check, mostly that of the policy table or key that configures the check.
    pub name: &'static str,
    /// Function that decides about a request on a route.
    pub decide: for<'p> fn(&'p Route, &RequestHead<'_>) -> Decision<'p>,
}

/// Every check, in an order that operators can rely on: cheap checks come before expensive ones, and the address is
/// checked before a password. The checks after `auth` reply only to clients that are authenticated.
pub const CHECKS: [Check; 14] = [
    Check { name: "limits", decide: |route, head| route.head_size.check(head.request).into() },
    Check { name: "hygiene", decide: |_, head| content_length::check(&head.request.headers).into() },
    Check { name: "limits", decide: |route, head| route.body_limit.check(&head.request.headers).into() },
    Check { name: "access", decide: |route, _| depends_on(route.access.as_deref(), ClientFact::Address) },
    Check { name: "cors", decide: preflight },
    Check { name: "http_to_https", decide: |route, head| route.to_https(head.request, head.is_https).into() },
    Check {
        name: "certificate",
        decide: |route, _| {
            depends_on(route.host_policies.client_certificate.as_ref(), ClientFact::Certificate)
        },
    },
    Check { name: "rate_limit", decide: count_on_arrival },
    Check { name: "auth", decide: |route, _| depends_on(route.auth.as_deref(), ClientFact::Credentials) },
    Check { name: "rate_limit", decide: count_by_claim },
    Check {
        name: "redirect",
        decide: |route, head| route.to_elsewhere(head.request, head.paths, head.is_https).into(),
    },
    Check { name: "rewrite", decide: rewrite },
    Check { name: "grpc", decide: grpc },
    Check { name: "websocket", decide: websocket },
];

/// Returns the position in [`CHECKS`] at which the policy table `name` is checked. Tables without a check come last.
pub(super) fn order(name: &str) -> usize {
    CHECKS.iter().position(|check| check.name == name).unwrap_or(CHECKS.len())
}

impl From<Verdict> for Decision<'_> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Continue(()) => Decision::Continue,
            Verdict::Reply(reply) => Decision::Reply(Box::new(reply)),
        }
    }
}

fn depends_on<'p, P>(policy: Option<&'p P>, fact: fn(&'p P) -> ClientFact<'p>) -> Decision<'p> {
    policy.map_or(Decision::Continue, |policy| Decision::DependsOn(fact(policy)))
}

/// Answers a CORS preflight. The answer comes before authentication, because browsers send no credentials with a
/// preflight.
fn preflight<'p>(route: &'p Route, head: &RequestHead<'_>) -> Decision<'p> {
    match (head.preflight, &route.cors) {
        (Some(method), Some(cors)) => Decision::Reply(Box::new(cors.answer(method, &head.request.headers))),
        _ => Decision::Continue,
    }
}

fn count_on_arrival<'p>(route: &'p Route, _: &RequestHead<'_>) -> Decision<'p> {
    depends_on(route.rate_limit.as_ref().and_then(|limiter| limiter.on_arrival.as_ref()), ClientFact::Count)
}

/// Counts the request in windows whose key is a claim. This check follows authentication, which finds the claims.
fn count_by_claim<'p>(route: &'p Route, _: &RequestHead<'_>) -> Decision<'p> {
    depends_on(route.rate_limit.as_ref().and_then(|limiter| limiter.by_claim.as_ref()), ClientFact::Count)
}

fn rewrite<'p>(route: &'p Route, head: &RequestHead<'_>) -> Decision<'p> {
    match route.rewritten(head.request, head.paths) {
        Verdict::Continue(None) => Decision::Continue,
        Verdict::Continue(Some(path)) => Decision::Rewrite(path),
        Verdict::Reply(reply) => Decision::Reply(Box::new(reply)),
    }
}

/// Refuses a gRPC call if its status could not reach the client. The status is in the trailers, and Pingora forwards no
/// trailers over HTTP/1.
fn grpc<'p>(route: &'p Route, head: &RequestHead<'_>) -> Decision<'p> {
    match head.needs_http2 {
        false => Decision::Continue,
        true if route.peers.is_http1() => Decision::Reply(Box::new(without_http2())),
        true => Decision::DependsOn(ClientFact::HttpVersion),
    }
}

/// Returns the local reply to a gRPC call for which the client or the backend does not use HTTP/2.
pub fn without_http2() -> Reply {
    let detail = "gRPC needs HTTP/2 from the client to the backend (upstream.protocol)";
    Reply::new(Problem::UnsupportedMediaType, detail)
}

fn websocket<'p>(_: &'p Route, head: &RequestHead<'_>) -> Decision<'p> {
    if head.wants_websocket { Decision::DependsOn(ClientFact::PipelinedData) } else { Decision::Continue }
}

/// Finds the route of a request with `find`. For a CORS preflight that the gateway answers, returns the route and the
/// method of the request that the browser wants to send. For any other request, the method is `None`.
///
/// # Errors
/// Returns the error of `find`.
pub fn find_route<'t, E>(
    request: &RequestHeader,
    find: impl Fn(&RequestHeader) -> Result<RouteMatch<'t, Arc<Route>>, E>,
) -> Result<(RouteMatch<'t, Arc<Route>>, Option<Method>), E> {
    if let Some(method) = cors::asks_for(&request.method, &request.headers) {
        let mut meant = request.clone();
        meant.set_method(method.clone());
        let found = find(&meant)?;
        if found.target.cors.is_some() {
            return Ok((found, Some(method)));
        }
    }
    Ok((find(request)?, None))
}
