//! Configuration tables about backends: probes, load balancing, connections, retries and the circuit breaker.

use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::fields::{FieldName, is_cookie_name};
use super::values::{Millis, Percent, Secs, StatusSet, is_default};

/// Default path of an HTTP probe.
const DEFAULT_PATH: &str = "/health";

/// `[health_check]`, a policy: probes, which test at intervals if a backend works.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// True if backends are probed. False: no probes, and every backend counts as healthy.
    pub enabled: bool,
    /// Kind of probe. Absent: `http` if `path` is given, otherwise `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProbeKind>,
    /// Path that an HTTP probe requests; absent: `/health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `Host` field of an HTTP probe; empty: the backend's address.
    #[serde(skip_serializing_if = "is_default")]
    pub host: String,
    /// Status codes with which an HTTP probe passes. Absent: 200 to 399 if `path` is given, otherwise every status
    /// below 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_status: Option<StatusSet>,
    /// Time between two probes of a backend. The gateway varies it by a tenth, so that probes do not coincide.
    pub interval_secs: Secs,
    /// Maximum duration of a probe.
    pub timeout_secs: Secs,
    /// Number of consecutive failed probes after which a backend is unhealthy.
    pub unhealthy_threshold: NonZeroU32,
    /// Number of consecutive passed probes after which an unhealthy backend is healthy again.
    pub healthy_threshold: NonZeroU32,
    /// Time in which the share of a recovered backend grows to its full size; 0: it gets the full share at once.
    pub slow_start_secs: u32,
    /// Minimum share of usable backends in a pool. If fewer are usable and no backup is usable, the gateway uses all
    /// backends of the pool, even unhealthy ones. 0: never.
    pub panic_threshold_percent: Percent,
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            enabled: true,
            kind: None,
            path: None,
            host: String::new(),
            expected_status: None,
            interval_secs: Secs::new(10),
            timeout_secs: Secs::new(5),
            unhealthy_threshold: NonZeroU32::MIN.saturating_add(2),
            healthy_threshold: NonZeroU32::MIN.saturating_add(1),
            slow_start_secs: 0,
            panic_threshold_percent: Percent::default(),
        }
    }
}

/// Kind of probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// GET request; the probe passes if the response has an expected status.
    Http,
    /// TCP connection; the probe passes if the connection (and, with TLS, the handshake) succeeds.
    Tcp,
    /// Call of `grpc.health.v1.Health/Check` over HTTP/2; the probe passes if the response says SERVING.
    Grpc,
}

impl HealthCheck {
    /// Returns the configured kind of probe, or the default kind if none is configured.
    pub fn probe_kind(&self) -> ProbeKind {
        let by_path = if self.path.is_some() { ProbeKind::Http } else { ProbeKind::Tcp };
        self.kind.unwrap_or(by_path)
    }

    /// Returns the path that an HTTP probe requests: the configured path or the default.
    pub fn http_path(&self) -> &str {
        self.path.as_deref().unwrap_or(DEFAULT_PATH)
    }

    /// Returns the status codes with which an HTTP probe passes. If no path is configured, the default path may not
    /// exist on a backend. Even 404 then proves that the backend works.
    pub fn passing_status(&self) -> StatusSet {
        let default = if self.path.is_some() { 200..=399 } else { 100..=499 };
        self.expected_status.clone().unwrap_or_else(|| StatusSet::range(default))
    }

    /// Returns true if HTTP probes pass with any response below 500, because neither path nor status is configured.
    pub fn passes_any_answer(&self) -> bool {
        self.enabled
            && self.probe_kind() == ProbeKind::Http
            && self.path.is_none()
            && self.expected_status.is_none()
    }
}

/// `[balancing]`, a policy: the choice of a backend for a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Balancing {
    /// Load-balancing algorithm.
    pub algorithm: Algorithm,
    /// Part of a request that `consistent_hash` hashes to choose the backend.
    pub hash_key: HashKey,
    /// Name of a signed cookie that keeps a client at the backend of its first request; empty: no cookie.
    #[serde(skip_serializing_if = "is_default")]
    pub sticky_cookie: String,
}

/// Load-balancing algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Each backend in turn. A backend with a larger weight gets more of the turns, evenly spread.
    #[default]
    RoundRobin,
    /// Another name for `round_robin`.
    Weighted,
    /// Backend with the fewest requests in flight relative to its weight.
    LeastConnections,
    /// Less loaded of two random backends: the one with fewer requests in flight relative to its weight.
    RandomTwoChoices,
    /// Backend chosen by a hash of `hash_key`; the same key gets the same backend while it is available.
    ConsistentHash,
}

/// Part of a request that chooses the backend; the client's address if the request has no such field or cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum HashKey {
    /// Address of the client.
    #[default]
    ClientIp,
    /// Path and query of the request.
    Uri,
    /// Value of the request field with this name.
    Header(FieldName),
    /// Value of the cookie with this name.
    Cookie(String),
}

impl TryFrom<String> for HashKey {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "client_ip" => Ok(HashKey::ClientIp),
            None if text == "uri" => Ok(HashKey::Uri),
            Some(("header", name)) => FieldName::try_from(name.to_owned()).map(HashKey::Header),
            Some(("cookie", name)) if is_cookie_name(name) => Ok(HashKey::Cookie(name.to_owned())),
            Some(("cookie", name)) => Err(format!("'{name}' cannot be the name of a cookie")),
            _ => Err(format!(
                "'{text}' is not a valid key; expected client_ip, uri, header:NAME or cookie:NAME"
            )),
        }
    }
}

impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            HashKey::ClientIp => serializer.serialize_str("client_ip"),
            HashKey::Uri => serializer.serialize_str("uri"),
            HashKey::Header(name) => serializer.collect_str(&format_args!("header:{}", name.0)),
            HashKey::Cookie(name) => serializer.collect_str(&format_args!("cookie:{name}")),
        }
    }
}

/// `[upstream]`, a policy: connections to backends.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// Timeout for opening a connection.
    pub connect_timeout_ms: Millis,
    /// Maximum time that the gateway waits for more bytes of a response.
    pub read_timeout_secs: Secs,
    /// Maximum time that the gateway waits until a backend accepts more bytes of a request.
    pub write_timeout_secs: Secs,
    /// Time for which the gateway keeps an idle connection open for the next request.
    pub idle_timeout_secs: Secs,
    /// Maximum idle time of a stream; it replaces `read_timeout_secs`. Streams are WebSockets (both directions count
    /// together), gRPC calls, and server-sent events that the client has requested.
    pub stream_idle_timeout_secs: Secs,
    /// Time after which the system probes a silent backend (TCP keep-alive). The system sends three probes, at
    /// intervals of a third of this time. It closes the connection if there is no reply. 0: no probes.
    pub tcp_keepalive_secs: u32,
    /// Time between two PINGs on an HTTP/2 connection to a backend. If a PING is not acknowledged within 5 s, the
    /// gateway closes the connection. 0: no PINGs.
    pub h2_ping_interval_secs: u32,
    /// HTTP/2 flow-control window: bytes of a response that a backend may send before the gateway reads them
    /// (RFC 9113 6.9.1).
    pub h2_window_bytes: NonZeroU32,
    /// Maximum number of idle connections to all backends together. If tables differ, the largest number applies.
    pub keepalive_pool_size: NonZeroUsize,
    /// HTTP version of connections to backends.
    pub protocol: UpstreamProtocol,
    /// True if connections to backends use TLS; false: they are not encrypted.
    pub tls: bool,
    /// Name or IP address that the backend's certificate must be valid for; empty: the host name in the backend's
    /// address.
    #[serde(skip_serializing_if = "is_default")]
    pub sni: String,
    /// Root certificates (PEM) that verify the backend's certificate; empty: the root certificates of the system.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_file: String,
    /// Client certificate (PEM, with the chain to its root) that the gateway presents to backends; empty: none.
    #[serde(skip_serializing_if = "is_default")]
    pub client_cert_file: String,
    /// Private key (PEM) of the certificate in `client_cert_file`.
    #[serde(skip_serializing_if = "is_default")]
    pub client_key_file: String,
    /// True if the backend's certificate is verified. False: an attacker on the network path can read the traffic,
    /// even with TLS.
    pub verify: bool,
    /// Maximum number of requests in flight at one backend; 503 if every backend is at the limit. 0: no limit.
    pub max_inflight_per_backend: u32,
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream {
            connect_timeout_ms: Millis::new(1000),
            read_timeout_secs: Secs::new(30),
            write_timeout_secs: Secs::new(30),
            idle_timeout_secs: Secs::new(55),
            stream_idle_timeout_secs: Secs::new(3600),
            tcp_keepalive_secs: 60,
            h2_ping_interval_secs: 30,
            h2_window_bytes: NonZeroU32::MIN.saturating_add(65_535),
            keepalive_pool_size: NonZeroUsize::MIN.saturating_add(511),
            protocol: UpstreamProtocol::Http1,
            tls: false,
            sni: String::new(),
            ca_file: String::new(),
            client_cert_file: String::new(),
            client_key_file: String::new(),
            verify: true,
            max_inflight_per_backend: 0,
        }
    }
}

/// HTTP version of connections to backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2. Without TLS, the gateway assumes that the backend supports it (prior knowledge, RFC 9113 3.3).
    Http2,
    /// HTTP/2 if the backend supports it, otherwise HTTP/1.1. TLS is required, because ALPN negotiates the version.
    Auto,
}

/// `[retry]`, a policy: retries of failed requests.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Maximum number of attempts, including the first. If the backend has just closed a reused connection, it has
    /// most likely not seen the request; one such attempt does not count.
    pub attempts: NonZeroU32,
    /// Status codes that cause a retry of an idempotent request, if attempts are left.
    pub on_status: Vec<u16>,
    /// Maximum pause before the first retry; it doubles for each further one. The actual pause is random, from 0.
    pub backoff_base_ms: Millis,
    /// Upper limit for the growing maximum pause.
    pub backoff_max_ms: Millis,
    /// Retry budget: additional load that retries may cause for a tag, in percent of its requests in ten seconds. Ten
    /// retries are always allowed.
    pub budget_percent: Percent,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: NonZeroU32::MIN.saturating_add(2),
            on_status: Vec::new(),
            backoff_base_ms: Millis::new(25),
            backoff_max_ms: Millis::new(1000),
            budget_percent: Percent::of(20),
        }
    }
}

/// `[circuit_breaker]`, a policy: a backend that fails requests gets no requests for `open_secs`. A request fails if
/// no connection can be opened, or if the response is missing, broken or 5xx. A gRPC request also fails if its
/// response ends with UNKNOWN, INTERNAL, UNAVAILABLE or DATA_LOSS.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// True if the circuit breaker is enabled; false: a backend gets requests even if it fails all of them.
    pub enabled: bool,
    /// Number of consecutive failed requests that opens the circuit of a backend, so that it gets no requests.
    pub consecutive_failures: NonZeroU32,
    /// Share of failed requests within `window_secs` that also opens the circuit.
    pub failure_percent: Percent,
    /// Minimum number of requests within `window_secs`; with fewer requests, `failure_percent` does not apply.
    pub min_requests: NonZeroU32,
    /// Time window in which the share of failed requests is measured.
    pub window_secs: Secs,
    /// Time for which the circuit stays open. After this time, the gateway sends one trial request to the backend. If
    /// the trial request fails, the circuit opens again, for twice as long.
    pub open_secs: Secs,
    /// Upper limit for the time that doubles with each failed trial request.
    pub max_open_secs: Secs,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker {
            enabled: true,
            consecutive_failures: NonZeroU32::MIN.saturating_add(4),
            failure_percent: Percent::of(50),
            min_requests: NonZeroU32::MIN.saturating_add(19),
            window_secs: Secs::new(10),
            open_secs: Secs::new(10),
            max_open_secs: Secs::new(300),
        }
    }
}
