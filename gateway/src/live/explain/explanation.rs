//! Content of an explanation. Programs get the content as JSON; [`super::text`] writes it for people.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::{Algorithm, AuthKind};
use crate::live::checks::ClientFact;
use crate::live::snapshot::Level;
use crate::policy::rate_limit;
use crate::reply::{Problem, Reply};
use crate::upstream::{BackendState, CircuitState};

/// Explanation of what the gateway would do with a request.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Explanation {
    /// Method of the request.
    pub method: String,
    /// Host of the request, as the client wrote it; `None` if there is no valid host.
    pub host: Option<String>,
    /// Path of the request, in the form in which it is compared with routes.
    pub path: String,
    /// Status of the local reply; `None` if the request would be sent to a backend.
    pub answered: Option<u16>,
    /// Reason why the request is refused; `None` if it is not refused.
    pub refused: Option<String>,
    /// Method that the browser asks permission for, if the request is a CORS preflight that the gateway
    /// answers. The explained route is then the route of the request that the browser wants to send.
    pub preflight: Option<String>,
    /// Domain of the virtual host that serves the request; `None` if no host does.
    pub virtual_host: Option<String>,
    /// Routes of that virtual host, each with its outcome.
    pub rules: Vec<RuleOutcome>,
    /// Route that the request matches; `None` if the gateway answers before routing.
    pub route: Option<Taken>,
}

impl Explanation {
    /// Records that the request ends with this local reply.
    pub(super) fn answered_with(&mut self, reply: &Reply) {
        self.answered = Some(reply.status());
        self.refused = reply.problem().map(|_| reply.detail().to_owned());
    }
}

/// A route of the virtual host, and its outcome for the request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RuleOutcome {
    /// Name of the route.
    pub name: String,
    /// True if the request matches this route and no other route matches better.
    pub taken: bool,
    /// Reason for the outcome.
    pub why: String,
}

/// The route that the gateway would use for the request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Taken {
    /// Name of the route; "/" for requests that no route of the virtual host matches.
    pub name: String,
    /// Target of the redirect that answers the request; `None` if the request is not redirected.
    pub redirect: Option<String>,
    /// Path that is sent to the backend.
    pub upstream_path: String,
    /// Policies of the route, each with the level of the configuration that it comes from.
    pub policies: Vec<Policy>,
    /// Pools that share the route's requests; mostly one.
    pub pools: Vec<Pool>,
    /// Tag of the pool that would get the request.
    pub tag: String,
    /// Load balancing algorithm that chooses a backend of the pool.
    pub algorithm: Algorithm,
    /// Backend that would be tried first; `None` if no backend is usable.
    pub next: Option<String>,
    /// Tag of the backends that get a copy of the request if its method allows that; `None` without a mirror.
    pub mirror: Option<String>,
    /// Checks that the explanation cannot decide because they depend on the client, in their order.
    pub depends_on: Vec<Condition>,
    /// True if every client gets the local reply, because no earlier check depends on the client.
    pub is_at_door: bool,
    /// True if an `[access]` table restricts the addresses of clients.
    pub by_address: bool,
    /// True if clients must present a certificate.
    pub by_certificate: bool,
    /// Kind of authentication that the route requires; `None` if it requires none.
    pub auth: Option<&'static str>,
    /// True if an auth server decides about requests: the client then also gets the server's cookies.
    pub auth_cookies: bool,
    /// Injected faults and their frequency; `None` without fault injection.
    pub fault: Option<String>,
    /// Windows of the rate limit. The request needs room in each of them.
    pub rate_limits: Vec<RateLimit>,
}

/// A check whose outcome depends on the client.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Condition {
    /// Name of the check; most checks have the name of their table.
    pub check: &'static str,
    /// Fact on which the outcome depends, and what is required.
    pub on: String,
    /// Status of the local reply to clients that do not meet the condition; absent if an auth server decides.
    pub refused_with: Option<u16>,
}

impl Condition {
    /// Returns the conditions that a client must meet to pass the check `check`.
    pub(super) fn of(check: &'static str, fact: &ClientFact<'_>) -> Vec<Self> {
        let condition = |on: String, problem: Problem| Condition {
            check,
            on,
            refused_with: Some(problem.status().as_u16()),
        };
        match fact {
            ClientFact::Address(_) => {
                vec![condition(
                    "the client's address: [access] must allow it".to_owned(),
                    Problem::AddressDenied,
                )]
            }
            ClientFact::Certificate(policy) if policy.is_required() => {
                let on = "the client's certificate: it must be valid for this host".to_owned();
                vec![condition(on, Problem::ClientCertificate)]
            }
            ClientFact::Certificate(_) => Vec::new(),
            ClientFact::Count(windows) => {
                let on = |window| format!("earlier requests: at most {}", RateLimit::from(window));
                windows.iter().map(|window| condition(on(window), Problem::RateLimited)).collect()
            }
            ClientFact::Credentials(auth) if auth.kind == AuthKind::Forward => {
                let on = "the auth server: it must admit the request (forward)".to_owned();
                vec![Condition { check, on, refused_with: None }]
            }
            ClientFact::Credentials(auth) => {
                let on = format!("the client's credentials: they must be valid ({})", auth.kind.name());
                vec![condition(on, Problem::CredentialsMissing)]
            }
            ClientFact::HttpVersion => {
                let on = "the client's HTTP version: gRPC needs HTTP/2".to_owned();
                vec![condition(on, Problem::UnsupportedMediaType)]
            }
            ClientFact::PipelinedData => {
                let on = "the client's connection: no data may follow before the response".to_owned();
                vec![condition(on, Problem::BadRequest)]
            }
        }
    }
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

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RateLimit { name, requests, window_secs, key, store } = self;
        write!(f, "{requests} in {window_secs} s by {key} ({name})")?;
        if store == "local" { Ok(()) } else { write!(f, " in {store}") }
    }
}

/// A window of a rate limit.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RateLimit {
    /// Name of the window in `RateLimit` header fields and in metrics.
    pub name: String,
    /// Maximum number of requests that a client may send in the window.
    pub requests: u32,
    /// Length of the window, in seconds.
    pub window_secs: u64,
    /// Part of a request that identifies the client.
    pub key: String,
    /// Location of the counts: "local" for the gateway itself, or the store.
    pub store: String,
}

/// A pool: the backends with one tag.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pool {
    /// Tag of the backends.
    pub tag: String,
    /// Share of the route's requests, in percent.
    pub percent: u8,
    /// True if the share of the pool comes from a rollout; false if it comes from the virtual host or route.
    pub by_rollout: bool,
    /// Backends of the pool.
    pub backends: Vec<Backend>,
}

/// A policy of the route.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Policy {
    /// Name of its table in the configuration.
    pub name: &'static str,
    /// Level of the configuration that the table comes from.
    pub from: Level,
}

/// A backend of a pool.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Backend {
    /// Id of the backend.
    pub id: String,
    /// Address of the backend.
    pub address: String,
    /// Weight relative to the other backends of the pool.
    pub weight: u32,
    /// True if the backend gets requests only while no primary backend is usable.
    pub backup: bool,
    /// Current condition of the backend.
    pub state: BackendCondition,
}

/// Condition of a backend: usable, or the reason why it gets no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendCondition {
    /// Requests are sent to the backend.
    Usable,
    /// Health checks of the backend fail.
    Unhealthy,
    /// The circuit breaker keeps requests away from the backend, because earlier requests failed.
    CircuitOpen,
    /// An operator has drained the backend.
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
