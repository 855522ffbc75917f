//! The tables of the configuration that say how backends are chosen, probed, spoken to, and given up.

use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::fields::{FieldName, is_cookie_name};
use super::values::{Millis, Percent, Secs, StatusSet, is_default};

/// What an HTTP probe asks for where nothing is configured.
const DEFAULT_PATH: &str = "/health";

/// `[health_check]`, a policy: how backends are probed.
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
    /// The Host of an HTTP probe; empty: the backend's address.
    #[serde(skip_serializing_if = "is_default")]
    pub host: String,
    /// Which answers pass. Absent: 200 to 399 where `path` is given, else every answer below 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_status: Option<StatusSet>,
    /// From one probe of a backend to the next; a tenth more or less, so that they do not fall together.
    pub interval_secs: Secs,
    /// How long a probe may take in all.
    pub timeout_secs: Secs,
    /// So many failures in a row make a backend unhealthy.
    pub unhealthy_threshold: NonZeroU32,
    /// So many passes in a row make it healthy again.
    pub healthy_threshold: NonZeroU32,
    /// Over this time a backend that has come back gets a growing share of its requests; 0: all at once.
    pub slow_start_secs: u32,
    /// Where fewer than this share of a pool's backends are usable, and no backup is, all of them are used,
    /// whatever is known about them; 0: never.
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

/// What a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// A GET whose status must be an expected one.
    Http,
    /// A connection that opens; with TLS, one that is agreed on.
    Tcp,
    /// A call of `grpc.health.v1.Health/Check`, answered with SERVING; the backend speaks HTTP/2.
    Grpc,
}

impl HealthCheck {
    /// What a probe is, decided.
    pub fn probe_kind(&self) -> ProbeKind {
        let by_path = if self.path.is_some() { ProbeKind::Http } else { ProbeKind::Tcp };
        self.kind.unwrap_or(by_path)
    }

    /// What an HTTP probe asks for.
    pub fn http_path(&self) -> &str {
        self.path.as_deref().unwrap_or(DEFAULT_PATH)
    }

    /// The statuses with which an HTTP probe passes. A path that is not configured may well not exist on a backend:
    /// even "not found" says that it serves.
    pub fn passing_status(&self) -> StatusSet {
        let default = if self.path.is_some() { 200..=399 } else { 100..=499 };
        self.expected_status.clone().unwrap_or_else(|| StatusSet::range(default))
    }

    /// Whether HTTP probes pass with any answer that is not a server's error, for want of a path.
    pub fn passes_any_answer(&self) -> bool {
        self.enabled
            && self.probe_kind() == ProbeKind::Http
            && self.path.is_none()
            && self.expected_status.is_none()
    }
}

/// `[balancing]`, a policy: how a backend is chosen.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Balancing {
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// What consistent hashing goes by.
    pub hash_key: HashKey,
    /// The name of a signed cookie that keeps a client with the backend that it got first; empty: none.
    #[serde(skip_serializing_if = "is_default")]
    pub sticky_cookie: String,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// One after the other, the heavier ones more often, and evenly spread.
    #[default]
    RoundRobin,
    /// Another name for `round_robin`.
    Weighted,
    /// The one with the fewest requests in flight for its weight.
    LeastConnections,
    /// Of two at random, the one with fewer requests in flight for its weight.
    RandomTwoChoices,
    /// The same one for the same key, as long as it is there.
    ConsistentHash,
}

/// What consistent hashing goes by. A request without the field or the cookie goes by its client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum HashKey {
    /// The client's address.
    #[default]
    ClientIp,
    /// The path and the query.
    Uri,
    /// The value of a header field.
    Header(FieldName),
    /// The value of a cookie.
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
            _ => Err(format!("'{text}' is no key; expected client_ip, uri, header:NAME or cookie:NAME")),
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
    /// How long a stream may be silent, in place of `read_timeout_secs`: a WebSocket (in both directions together), a
    /// call of gRPC, or server-sent events that were asked for.
    pub stream_idle_timeout_secs: Secs,
    /// Time after which the system asks a silent peer whether it is still there (TCP keep-alive), three times a third of
    /// it apart; a connection on which nothing comes back is closed. 0: never.
    pub tcp_keepalive_secs: u32,
    /// Time between two PINGs on a connection of HTTP/2; one that is not answered within 5 s closes the connection. 0:
    /// none are sent.
    pub h2_ping_interval_secs: u32,
    /// How many bytes of a response over HTTP/2 a backend may send before they are read (RFC 9113 6.9.1).
    pub h2_window_bytes: NonZeroU32,
    /// How many idle connections are kept, all backends together; the largest number of any table holds.
    pub keepalive_pool_size: NonZeroUsize,
    /// Which version of HTTP is spoken.
    pub protocol: UpstreamProtocol,
    /// Whether it is spoken over TLS.
    pub tls: bool,
    /// The name, or the IP address, that the backend must have a certificate for; empty: the host name in its address.
    #[serde(skip_serializing_if = "is_default")]
    pub sni: String,
    /// Certificates (PEM) that the backend's must lead to; empty: the system's.
    #[serde(skip_serializing_if = "is_default")]
    pub ca_file: String,
    /// The certificate (PEM, with what leads to its root) that the gateway shows; empty: none.
    #[serde(skip_serializing_if = "is_default")]
    pub client_cert_file: String,
    /// The key (PEM) of that certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub client_key_file: String,
    /// Whether the backend's certificate is verified. Where not, anybody in between can read along.
    pub verify: bool,
    /// How many requests a backend may have in flight; more are answered with 503. 0: any number.
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

/// Which version of HTTP is spoken to backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2; without TLS, with prior knowledge (RFC 9113 3.3).
    Http2,
    /// HTTP/2 where the backend takes it (ALPN, so it needs TLS), else HTTP/1.1.
    Auto,
}

/// `[retry]`, a policy: what is tried again.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included. One more is free where a kept connection has just been closed: the
    /// backend has most likely not seen the request.
    pub attempts: NonZeroU32,
    /// Answers with these statuses are not passed on while there may be another attempt; idempotent requests
    /// alone.
    pub on_status: Vec<u16>,
    /// Before the first retry there is a pause of anything up to this; before each further one, up to twice as
    /// much.
    pub backoff_base_ms: Millis,
    /// No pause is longer.
    pub backoff_max_ms: Millis,
    /// Retries may add at most this share to the requests for the same tag, over ten seconds; ten are always
    /// allowed.
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

/// `[circuit_breaker]`, a policy: when a backend that fails requests gets none for a while. A failure is a
/// connection that cannot be opened, an answer that does not come, is broken, or is 5xx; of gRPC one that ends with
/// UNKNOWN, INTERNAL, UNAVAILABLE or DATA_LOSS.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Whether this happens at all.
    pub enabled: bool,
    /// So many failures in a row open the circuit.
    pub consecutive_failures: NonZeroU32,
    /// And so does this share of failures, in `window_secs`.
    pub failure_percent: Percent,
    /// Where there were at least so many requests.
    pub min_requests: NonZeroU32,
    /// Over which time that share is taken.
    pub window_secs: Secs,
    /// How long the circuit stays open. Then one request tries: where it fails, the circuit is open again, for
    /// twice as long.
    pub open_secs: Secs,
    /// But never longer than this.
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
