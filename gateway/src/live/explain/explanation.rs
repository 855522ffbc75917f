//! What an explanation says: for programs as it stands, and for people as [`super::text`] writes it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Algorithm;
use crate::live::snapshot::Level;
use crate::policy::rate_limit;
use crate::reply::Reply;
use crate::upstream::{BackendState, CircuitState};

/// What would become of a request.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Explanation {
    /// Its method.
    pub method: String,
    /// The host that it is for, as it was written.
    pub host: Option<String>,
    /// Its path, in the form by which it is routed.
    pub path: String,
    /// The status with which the gateway itself would answer, where it would.
    pub answered: Option<u16>,
    /// What is wrong with it, where it is refused.
    pub refused: Option<String>,
    /// The method for which it asks leave, where it is only a browser's question (a preflight of CORS) that is answered
    /// by the route of the request that it is about.
    pub preflight: Option<String>,
    /// The domain of the virtual host that serves it.
    pub virtual_host: Option<String>,
    /// The routes of that virtual host, and what becomes of each.
    pub rules: Vec<Rule>,
    /// What happens to it, where a virtual host serves it.
    pub route: Option<Taken>,
}

impl Explanation {
    /// It ends here.
    pub(super) fn answered_with(&mut self, reply: &Reply) {
        self.answered = Some(reply.status());
        self.refused = reply.problem().map(|_| reply.detail().to_owned());
    }
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
    /// Whether it is answered before anybody asks who the client is.
    pub is_at_door: bool,
    /// Whether not every address is let in.
    pub by_address: bool,
    /// Whether clients must show a certificate.
    pub by_certificate: bool,
    /// What a request must bear, where it must bear something.
    pub auth: Option<&'static str>,
    /// Whether cookies of another server, which decides who may pass, go to the client.
    pub auth_cookies: bool,
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
