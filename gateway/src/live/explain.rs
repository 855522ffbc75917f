//! What the gateway would do with a request: asked of the same functions that route live ones, without sending
//! anything and without counting anything.

use std::fmt;
use std::sync::Arc;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Serialize;

use super::snapshot::{Level, Route, Snapshot};
use crate::config::Algorithm;
use crate::policy::{Verdict, rate_limit};
use crate::reply::{self, Problem};
use crate::route::{self, Outcome};
use crate::upstream::{Arm, BackendState, CircuitState, Member};

/// What would become of a request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// Its method.
    pub method: String,
    /// The host that it is for, as it was written.
    pub host: Option<String>,
    /// Its path, in the form by which it is routed.
    pub path: String,
    /// The status with which the gateway itself would answer, where it would.
    pub answered: Option<u16>,
    /// What is wrong with its path, where that is refused.
    pub refused: Option<String>,
    /// The domain of the virtual host that serves it.
    pub virtual_host: Option<String>,
    /// The routes of that virtual host, and what becomes of each.
    pub rules: Vec<Rule>,
    /// What happens to it, where a virtual host serves it.
    pub route: Option<Taken>,
}

/// A route of the virtual host.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Whether it is taken.
    pub taken: bool,
    /// Why, or why not.
    pub why: String,
}

/// The route that is taken.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Taken {
    /// Its name; "/" is that of the requests which no rule takes.
    pub name: String,
    /// Where the client is sent instead.
    pub redirect: Option<String>,
    /// The path that the backend gets to see.
    pub upstream_path: String,
    /// Its policies, and where each was written.
    pub policies: Vec<Policy>,
    /// The pools that share its requests; mostly one.
    pub pools: Vec<Pool>,
    /// The tag whose pool would get it.
    pub tag: String,
    /// How one of its backends is chosen.
    pub algorithm: Algorithm,
    /// The backend that would be asked first.
    pub next: Option<String>,
    /// The tag whose backends get a copy, where the request's method allows it.
    pub mirror: Option<String>,
    /// What a request must bear, where it must bear something.
    pub auth: Option<&'static str>,
    /// What goes wrong on purpose, and how often.
    pub fault: Option<String>,
    /// The windows in all of which there must be room for it.
    pub rate_limits: Vec<RateLimit>,
}

impl From<&rate_limit::Window> for RateLimit {
    fn from(window: &rate_limit::Window) -> Self {
        RateLimit {
            name: window.name.clone(),
            requests: window.limit,
            window_secs: window.ms / 1000,
            key: window.key.to_string(),
            store: window.store.to_string(),
        }
    }
}

/// A window of the rate limit.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RateLimit {
    /// Its name in `RateLimit` fields and metrics.
    pub name: String,
    /// Requests that a client may make in it.
    pub requests: u32,
    /// How long it is.
    pub window_secs: u64,
    /// What makes a client.
    pub key: String,
    /// Where is counted.
    pub store: String,
}

/// The backends with a tag.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pool {
    /// The tag.
    pub tag: String,
    /// Its share of the route's requests.
    pub percent: u8,
    /// Whether it has that only by a rollout.
    pub by_rollout: bool,
    /// The backends.
    pub backends: Vec<Backend>,
}

/// A policy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Policy {
    /// The name of its table.
    pub name: &'static str,
    /// Where the table was written.
    pub from: Level,
}

/// A backend.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Backend {
    /// Its id.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Its share, beside those of the others.
    pub weight: u32,
    /// Whether it is used only where no other is usable.
    pub backup: bool,
    /// Whether requests are sent to it, or why not.
    pub state: BackendCondition,
}

/// Whether requests are sent to a backend, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendCondition {
    /// They are.
    Usable,
    /// Probes fail.
    Unhealthy,
    /// Requests failed, so it gets none for a while.
    CircuitOpen,
    /// Somebody has drained it.
    Drained,
}

impl From<&BackendState> for BackendCondition {
    fn from(backend: &BackendState) -> Self {
        match (backend.is_drained(), backend.is_healthy(), backend.circuit()) {
            (true, _, _) => BackendCondition::Drained,
            (_, false, _) => BackendCondition::Unhealthy,
            (_, _, CircuitState::Open) => BackendCondition::CircuitOpen,
            _ => BackendCondition::Usable,
        }
    }
}

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

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("(no host)");
        writeln!(f, "{} {host} {}", self.method, self.path)?;
        let Some(virtual_host) = &self.virtual_host else {
            let status = self.answered.unwrap_or_default();
            return writeln!(f, "  virtual host  none: answered with {status}");
        };
        writeln!(f, "  virtual host  {virtual_host}")?;
        if let Some(refused) = &self.refused {
            return writeln!(f, "  refused       {refused}: answered with 400");
        }
        for rule in &self.rules {
            let taken = if rule.taken { "yes" } else { "no " };
            writeln!(f, "  route         {taken} {}: {}", rule.name, rule.why)?;
        }
        let Some(route) = &self.route else { return Ok(()) };
        if !self.rules.iter().any(|rule| rule.taken) {
            writeln!(f, "  route         none of its own: the virtual host itself")?;
        }
        let policies = route.policies.iter().map(|policy| match policy.from {
            Level::Route => format!("{} (route)", policy.name),
            Level::VirtualHost => format!("{} (virtual host)", policy.name),
            Level::Top => format!("{} (top)", policy.name),
            Level::Default => format!("{} (default)", policy.name),
        });
        writeln!(f, "  policies      {}", policies.collect::<Vec<_>>().join(", "))?;
        if let Some(auth) = route.auth {
            writeln!(f, "  auth          {auth}: 401 to whoever does not prove who asks")?;
        }
        if let Some(target) = &route.redirect {
            return writeln!(f, "  redirect      308 to {target}");
        }
        writeln!(f, "  path          {}", route.upstream_path)?;
        for pool in &route.pools {
            let share = if route.pools.len() > 1 { format!(" {}%", pool.percent) } else { String::new() };
            writeln!(f, "  pool          {}{share}", pool.tag)?;
            for backend in &pool.backends {
                let state = match backend.state {
                    BackendCondition::Usable => "usable",
                    BackendCondition::Unhealthy => "unhealthy",
                    BackendCondition::CircuitOpen => "circuit open",
                    BackendCondition::Drained => "drained",
                };
                let weight =
                    if backend.weight > 1 { format!(" weight {}", backend.weight) } else { String::new() };
                let backup = if backend.backup { " backup" } else { "" };
                writeln!(f, "  backend       {} {} {state}{weight}{backup}", backend.id, backend.address)?;
            }
        }
        for limit in &route.rate_limits {
            let RateLimit { name, requests, window_secs, key, store } = limit;
            let store = if store == "local" { String::new() } else { format!(" in {store}") };
            writeln!(f, "  rate limit    {name}: {requests} in {window_secs} s by {key}{store}")?;
        }
        if let Some(tag) = &route.mirror {
            writeln!(f, "  mirror        {tag}")?;
        }
        if let Some(fault) = &route.fault {
            writeln!(f, "  fault         {fault}")?;
        }
        let algorithm = serde_json::to_value(route.algorithm).unwrap_or_default();
        writeln!(f, "  algorithm     {}", algorithm.as_str().unwrap_or_default())?;
        writeln!(f, "  next          {}", route.next.as_deref().unwrap_or("nobody: answered with 503"))
    }
}
