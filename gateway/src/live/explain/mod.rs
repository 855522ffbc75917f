//! What the gateway would do with a request: asked of the same functions that route live ones, without sending
//! anything and without counting anything.

mod explanation;
mod text;

use std::fmt;
use std::sync::Arc;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use pingora::http::RequestHeader;

use super::snapshot::{Route, Snapshot};
use crate::policy::Verdict;
use crate::reply::{self, Problem};
use crate::route::{self, Outcome};
use crate::upstream::{Arm, Member};

use explanation::{Backend, Policy, Pool, RateLimit, Rule, Taken};
pub use explanation::{BackendCondition, Explanation};

/// A request, and how it comes.
pub struct Question {
    /// The request.
    pub request: RequestHeader,
    /// Whether it comes by HTTPS.
    pub is_https: bool,
}

/// The request that a method, a URL and header fields make. A `Host` among them is asked about in place of the
/// URL's, as curl does.
///
/// # Errors
/// What is wrong with it.
pub fn asked(
    method: &Method,
    url: &Uri,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Result<Question, String> {
    let wrong = |what: &dyn fmt::Display| format!("'{url}': {what}");
    let host = url.authority().ok_or_else(|| wrong(&"there is no host; expected http://host/path"))?;
    let target = url.path_and_query().map_or("/", |target| target.as_str());
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

/// What `snapshot` makes of a request.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Explanation {
    let request = &question.request;
    let mut explanation = Explanation {
        method: request.method.to_string(),
        host: route::authority(request).ok().flatten().map(str::to_owned),
        path: request.uri.path().to_owned(),
        answered: None,
        refused: None,
        virtual_host: None,
        rules: Vec::new(),
        route: None,
    };
    if request.method == Method::CONNECT {
        // Pingora refuses to be a tunnel before any phase of ours.
        explanation.answered = Some(405);
        return explanation;
    }
    let is_here = snapshot.config.proxy.problems_url.is_empty();
    if is_here && reply::problems(&request.method, request.uri.path()).is_some() {
        explanation.answered = Some(200);
        return explanation;
    }
    let rules = match route::virtual_host(&snapshot.hosts, request) {
        Verdict::Continue(rules) => rules,
        Verdict::Reply(reply) => {
            explanation.answered = Some(reply.status());
            return explanation;
        }
    };
    explanation.virtual_host = Some(rules.otherwise().domain.clone());
    let found = match route::within(rules, request) {
        Ok(found) => found,
        Err(bad) => {
            explanation.answered = Some(Problem::BadRequest.status().as_u16());
            explanation.refused = Some(bad.to_string());
            return explanation;
        }
    };
    let written = request.uri.path();
    let (path, sent) = found.paths.as_deref().map_or((written, written), |it| (&*it.compared, &*it.sent));
    path.clone_into(&mut explanation.path);
    let (outcomes, route) = (rules.explain(&route::asked(request, path)), found.target);
    let rule = |(route, outcome): (&Arc<Route>, Outcome)| Rule {
        name: route.name.clone(),
        taken: outcome == Outcome::Taken,
        why: why(&outcome),
    };
    explanation.rules = outcomes.into_iter().map(rule).collect();
    explanation.rules.sort_by(|a, b| a.name.cmp(&b.name));
    let upstream_path = route.rewrite.apply(path, sent).unwrap_or_else(|| sent.to_owned());
    let mut taken = taken(route, request, upstream_path);
    if let Some(to_https) = to_https(route, question) {
        taken.redirect = Some(to_https);
    }
    explanation.answered = taken.redirect.as_ref().map(|_| 308);
    explanation.route = Some(taken);
    explanation
}

/// Where `http_to_https` sends the client, if it does.
fn to_https(route: &Route, question: &Question) -> Option<String> {
    let request = &question.request;
    let host = route::authority(request).ok().flatten();
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    match route.entrance.https_redirect.as_ref()?.check(question.is_https, host, target) {
        Verdict::Reply(reply) => reply.fields().get(header::LOCATION)?.to_str().ok().map(str::to_owned),
        Verdict::Continue(()) => None,
    }
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
    let pool = |arm: &Arm| Pool {
        tag: arm.tag.clone(),
        percent: arm.percent,
        by_rollout: arm.provisional,
        backends: arm.pool.members().map(backend).collect(),
    };
    let chosen = route.split.arm(route.known_draw(&request.headers).unwrap_or_else(|| route.split.peek()));
    let known = route.known_mark(&request.headers);
    let next = chosen.pool.next(&route.wanted(request, None, known, &mut [0; 16]));
    Taken {
        name: route.name.clone(),
        redirect: route.redirect.as_ref().map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned()),
        upstream_path,
        policies: route.policies.iter().map(|&(name, from)| Policy { name, from }).collect(),
        pools: route.split.arms().map(pool).collect(),
        tag: chosen.tag.clone(),
        algorithm: route.algorithm,
        next: next.map(|backend| backend.name.clone()),
        mirror: route.mirror.as_ref().map(|mirror| mirror.tag.clone()),
        auth: route.auth.as_ref().map(|auth| auth.kind.name()),
        fault: route.fault.as_ref().map(ToString::to_string),
        rate_limits: route
            .rate_limit
            .iter()
            .flat_map(|limiter| limiter.windows().map(RateLimit::from))
            .collect(),
    }
}
