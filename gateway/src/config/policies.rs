//! The tables of the configuration that say what happens to requests.

use std::num::{NonZeroU32, NonZeroUsize};

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{FieldName, FieldValue, Fields};
use super::values::{Millis, Secs, StatusSet};

/// `[health_check]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// Whether backends are probed; where not, all count as healthy.
    pub enabled: bool,
    /// What a probe is. Absent: http where a path is given, else tcp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProbeKind>,
    /// What an HTTP probe asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Which answers pass.
    pub expected_status: StatusSet,
    /// From one probe of a backend to the next.
    pub interval_secs: Secs,
    /// How long a probe may take in all.
    pub timeout_secs: Secs,
    /// So many failures in a row make a backend unhealthy.
    pub unhealthy_threshold: NonZeroU32,
    /// So many passes in a row make it healthy again.
    pub healthy_threshold: NonZeroU32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            enabled: true,
            kind: None,
            path: None,
            expected_status: StatusSet::range(200..=399),
            interval_secs: Secs::new(10),
            timeout_secs: Secs::new(5),
            unhealthy_threshold: NonZeroU32::MIN.saturating_add(2),
            healthy_threshold: NonZeroU32::MIN.saturating_add(1),
        }
    }
}

/// What a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// A GET whose status must be an expected one.
    Http,
    /// A connection that opens.
    Tcp,
}

impl HealthCheck {
    /// What an HTTP probe asks for; `None` where the probe is a connection.
    pub fn http_path(&self) -> Option<&str> {
        match (self.kind, &self.path) {
            (Some(ProbeKind::Tcp), _) | (None, None) => None,
            (_, Some(path)) => Some(path),
            (Some(ProbeKind::Http), None) => Some("/health"),
        }
    }
}

/// `[balancing]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Balancing {
    /// How a backend is chosen.
    pub algorithm: Algorithm,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// One after the other.
    #[default]
    RoundRobin,
}

/// `[upstream]`, a policy: how backends are spoken to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// How long a connection may take to open.
    pub connect_timeout_ms: Millis,
    /// How long a backend may be silent while it answers.
    pub read_timeout_secs: Secs,
    /// How long a backend may refuse to take more of a request.
    pub write_timeout_secs: Secs,
    /// How long an idle connection is kept for the next request.
    pub idle_timeout_secs: Secs,
    /// How many idle connections are kept, all backends together; the largest number of any table holds.
    pub keepalive_pool_size: NonZeroUsize,
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream {
            connect_timeout_ms: Millis::new(1000),
            read_timeout_secs: Secs::new(30),
            write_timeout_secs: Secs::new(30),
            idle_timeout_secs: Secs::new(55),
            keepalive_pool_size: NonZeroUsize::MIN.saturating_add(511),
        }
    }
}

/// `[retry]`, a policy: what is tried again.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: NonZeroU32,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts: NonZeroU32::MIN.saturating_add(2) }
    }
}

/// `[rate_limit]`, a policy: how much a client may ask.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Requests that a client may make in a window.
    pub requests: NonZeroU32,
    /// How long a window is; it opens with the client's first request.
    pub window_secs: Secs,
    /// What makes a client.
    pub key: RateLimitKey,
    /// What is counted together.
    pub scope: RateLimitScope,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit {
            requests: NonZeroU32::MIN.saturating_add(99),
            window_secs: Secs::new(60),
            key: RateLimitKey::ClientIp,
            scope: RateLimitScope::Route,
        }
    }
}

/// What makes a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitKey {
    /// Its address; of IPv6 the first 64 bits, which is what one customer is given.
    ClientIp,
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitScope {
    /// Each route counts for itself.
    Route,
    /// One counter for all that the table holds for.
    Global,
}

/// `[headers]`, a policy: which header fields are changed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Set on the way up, whatever was there.
    pub request_set: Fields,
    /// Added on the way up.
    pub request_add: Fields,
    /// Removed on the way up.
    pub request_remove: Vec<FieldName>,
    /// Set on the way down, whatever was there.
    pub response_set: Fields,
    /// Added on the way down.
    pub response_add: Fields,
    /// Removed on the way down.
    pub response_remove: Vec<FieldName>,
    /// Whether `X-Backend` tells the client which backend answered.
    pub expose_backend: bool,
}

impl Default for Headers {
    fn default() -> Self {
        let name = |name| FieldName(HeaderName::from_static(name));
        let gateway = FieldValue(HeaderValue::from_static("gateway"));
        Headers {
            request_set: Fields(vec![(name("x-proxy"), gateway)]),
            request_add: Fields::default(),
            request_remove: Vec::new(),
            response_set: Fields::default(),
            response_add: Fields::default(),
            response_remove: vec![name("server"), name("x-powered-by")],
            expose_backend: false,
        }
    }
}
