//! Explains what the gateway would do with a request. The explanation calls the same functions that route live
//! requests, and runs the same list of checks ([`CHECKS`]), but sends nothing and counts nothing.

mod explanation;
mod text;

use std::fmt;
use std::sync::Arc;

use explanation::{Backend, Condition, Policy, Pool, RateLimit, RuleOutcome, Taken};
pub use explanation::{BackendCondition, Explanation};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use pingora::http::RequestHeader;

use super::checks::{self, CHECKS, Decision, RequestHead};
use super::snapshot::{Route, Snapshot};
use crate::config::AuthKind;
use crate::policy::hygiene;
use crate::reply::{Problem, Reply};
use crate::route::{self, Asked, Outcome, RuleTable};
use crate::upstream::{Member, WeightedPool};
use crate::{grpc, websocket};

/// A request to explain.
pub struct Question {
    /// Head of the request.
    pub request: RequestHeader,
    /// True if the request arrives over HTTPS.
    pub is_https: bool,
}

/// Builds a request to explain from a method, a URL and header fields. A `Host` field replaces the host of the
/// URL, as in curl.
///
/// # Errors
/// Returns a message if the URL has no host, or if method, URL and header fields do not form a valid request.
pub fn asked(
    method: &Method,
    url: &Uri,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Result<Question, String> {
    let wrong = |what: &dyn fmt::Display| format!("'{url}': {what}");
    let host = url.authority().ok_or_else(|| wrong(&"there is no host; expected http://host/path"))?;
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let foreign = hygiene::foreign_byte(target.as_bytes()).and_then(|at| target.get(at..)?.chars().next());
    if let Some(other) = foreign {
        return Err(wrong(&format_args!("a request's target has no '{other}'; clients percent-encode it")));
    }
    let mut request =
        RequestHeader::build(method.clone(), target.as_bytes(), None).map_err(|error| wrong(&error))?;
    request.insert_header(header::HOST, host.as_str()).map_err(|error| wrong(&error))?;
    for (name, value) in headers {
        let set = if name == header::HOST {
            request.insert_header(name, value)
        } else {
            request.append_header(name, value).map(|_| ())
        };
        set.map_err(|error| wrong(&error))?;
    }
    Ok(Question { request, is_https: url.scheme() == Some(&Scheme::HTTPS) })
}

/// Explains what `snapshot` would do with the request.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Explanation {
    let request = &question.request;
    let mut explanation = Explanation {
        method: request.method.to_string(),
        host: route::authority(request).ok().flatten().map(str::to_owned),
        path: request.uri.path().to_owned(),
        ..Explanation::default()
    };
    let rules = match before_routes(snapshot, request) {
        Ok(rules) => rules,
        Err(reply) => {
            explanation.answered_with(&reply);
            return explanation;
        }
    };
    explanation.virtual_host = Some(rules.otherwise().domain.clone());
    let (found, preflight) = match checks::find_route(request, |request| route::within(rules, request)) {
        Ok(found) => found,
        Err(bad) => {
            explanation.answered_with(&Reply::new(Problem::BadRequest, bad.to_string()));
            return explanation;
        }
    };
    explanation.preflight = preflight.as_ref().map(Method::to_string);
    let written = request.uri.path();
    let (path, sent) = found.paths.as_deref().map_or((written, written), |it| (&*it.compared, &*it.sent));
    path.clone_into(&mut explanation.path);
    let asked =
        Asked { method: preflight.as_ref().unwrap_or(&request.method), path, headers: &request.headers };
    let rule = |(route, outcome): (&Arc<Route>, Outcome)| RuleOutcome {
        name: route.name.clone(),
        taken: outcome == Outcome::Taken,
        why: why(&outcome),
    };
    explanation.rules = rules.explain(&asked).into_iter().map(rule).collect();
    explanation.rules.sort_by(|a, b| a.name.cmp(&b.name));
    let route = found.target;
    let mut taken = taken(route, request, sent.to_owned());
    let head = RequestHead {
        request,
        paths: found.paths.as_deref(),
        is_https: question.is_https,
        preflight: preflight.as_ref(),
        needs_http2: grpc::Call::of(&request.headers).is_some_and(|call| call.needs_http2()),
        wants_websocket: websocket::is_asked_for(request),
    };
    if let Some(reply) = run_checks(route, &head, &mut taken) {
        explanation.answered_with(&reply);
        let location = reply.fields().get(header::LOCATION);
        taken.redirect = location.map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
        taken.is_at_door = taken.depends_on.is_empty();
    }
    explanation.route = Some(taken);
    explanation
}

/// Runs the checks before routing. Returns the virtual host's routes, or the local reply of a check.
fn before_routes<'s>(
    snapshot: &'s Snapshot,
    request: &RequestHeader,
) -> Result<&'s Arc<RuleTable<Arc<Route>>>, Box<Reply>> {
    hygiene::check(request).passed()?;
    match snapshot.problem_page(request) {
        Some(page) => Err(Box::new(page)),
        None => route::virtual_host(&snapshot.hosts, request).passed(),
    }
}

/// Runs the checks of the route. Returns the local reply of the first check that always replies to the request.
fn run_checks(route: &Route, head: &RequestHead<'_>, taken: &mut Taken) -> Option<Box<Reply>> {
    for check in &CHECKS {
        match (check.decide)(route, head) {
            Decision::Continue => {}
            Decision::Rewrite(path) => taken.upstream_path = path,
            Decision::Reply(reply) => return Some(reply),
            Decision::DependsOn(fact) => taken.depends_on.extend(Condition::of(check.name, &fact)),
        }
    }
    None
}

fn why(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Taken => "the longest match".to_owned(),
        Outcome::Outdone => "it matches, and another one matches more".to_owned(),
        Outcome::Path => "the path is another one".to_owned(),
        Outcome::Method => "the method is another one".to_owned(),
        Outcome::Header(name) => format!("the field {name} is missing or has another value"),
    }
}

fn taken(route: &Route, request: &RequestHeader, upstream_path: String) -> Taken {
    let backend = |(member, backup): (&Member, bool)| Backend {
        id: member.backend.name.clone(),
        address: member.backend.endpoint.to_string(),
        weight: member.weight,
        backup,
        state: BackendCondition::from(&*member.backend),
    };
    let pool = |weighted_pool: &WeightedPool| Pool {
        tag: weighted_pool.tag.clone(),
        percent: weighted_pool.percent,
        by_rollout: weighted_pool.provisional,
        backends: weighted_pool.pool.members().map(backend).collect(),
    };
    let chosen = route
        .split
        .weighted_pool(route.sticky_bucket(&request.headers).unwrap_or_else(|| route.split.peek()));
    let known = route.sticky_id(&request.headers);
    let next = chosen.pool.next(&route.selection(request, None, known, &mut [0; 16]));
    let mut policies: Vec<_> = route.policies.iter().map(|&(name, from)| Policy { name, from }).collect();
    policies.sort_by_key(|policy| checks::order(policy.name));
    Taken {
        name: route.name.clone(),
        redirect: None,
        upstream_path,
        policies,
        pools: route.split.weighted_pools().map(pool).collect(),
        tag: chosen.tag.clone(),
        algorithm: route.algorithm,
        next: next.map(|backend| backend.name.clone()),
        mirror: route.mirror.as_ref().map(|mirror| mirror.tag.clone()),
        depends_on: Vec::new(),
        is_at_door: false,
        by_address: route.access.is_some(),
        by_certificate: route
            .host_policies
            .client_certificate
            .as_ref()
            .is_some_and(|policy| policy.is_required()),
        auth: route.auth.as_ref().map(|auth| auth.kind.name()),
        auth_cookies: route.auth.as_ref().is_some_and(|auth| auth.kind == AuthKind::Forward),
        fault: route.fault.as_ref().map(ToString::to_string),
        rate_limits: route
            .rate_limit
            .iter()
            .flat_map(|limiter| limiter.windows().map(RateLimit::from))
            .collect(),
    }
}
