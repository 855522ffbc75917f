//! The keys of the configuration and their defaults; `gateway/config/reference.toml` explains each one.
//!
//! Everything has a default, so that a file holds only what its writer decided. What must be there (a
//! backend's `id`, say) defaults to empty, and [`validate`](super::validate) asks for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::Address;
use super::auth::{Access, Auth};
use super::cases::Case;
use super::lets_encrypt::LetsEncrypt;
use super::policies::{Headers, Limits, SecurityHeaders};
use super::proxy::Proxy;
use super::rate_limit::RateLimits;
use super::responses::{Compression, Cors};
use super::routes::Route;
use super::shares::{Rollout, Share};
use super::upstream::{Balancing, CircuitBreaker, HealthCheck, Retry, Upstream};
use super::values::{OneOrMany, Weight, is_default};

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Tags that may be without a backend: requests for them are answered with 503. Any other tag that no
    /// backend bears is a mistake.
    #[serde(skip_serializing_if = "is_default")]
    pub empty_tags: Vec<String>,
    /// Listeners, and what holds for every connection.
    pub proxy: Proxy,
    /// The process log and the access log.
    pub logging: Logging,
    /// The listener for metrics and health.
    pub metrics: Metrics,
    /// The management API.
    pub admin: Admin,
    /// How backends are probed, where a virtual host does not say.
    pub health_check: HealthCheck,
    /// How a backend is chosen, where a virtual host does not say.
    pub balancing: Balancing,
    /// How backends are spoken to, where a virtual host does not say.
    #[serde(skip_serializing_if = "is_default")]
    pub upstream: Option<Upstream>,
    /// What is tried again, where a virtual host does not say.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: Option<Retry>,
    /// When a backend that fails requests gets none for a while, where a virtual host does not say.
    #[serde(skip_serializing_if = "is_default")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How much a client may ask, where a virtual host does not say. Absent: any number.
    #[serde(skip_serializing_if = "is_default")]
    pub rate_limit: Option<RateLimits>,
    /// How large a request may be, where a virtual host does not say.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Option<Limits>,
    /// Which header fields are changed, where a virtual host does not say.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: Option<Headers>,
    /// Which fields tell browsers to be careful, where a virtual host does not say.
    #[serde(skip_serializing_if = "is_default")]
    pub security_headers: Option<SecurityHeaders>,
    /// From where clients may come, where a virtual host does not say. Absent: from everywhere.
    #[serde(skip_serializing_if = "is_default")]
    pub access: Option<Access>,
    /// What a request must prove, where a virtual host does not say. Absent: nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub auth: Option<Auth>,
    /// Which pages of other origins may use responses, where a virtual host does not say. Absent: as backends say.
    #[serde(skip_serializing_if = "is_default")]
    pub cors: Option<Cors>,
    /// Which responses are compressed, where a virtual host does not say. Absent: none.
    #[serde(skip_serializing_if = "is_default")]
    pub compression: Option<Compression>,
    /// Where virtual hosts with `acme = true` get their certificates from.
    #[serde(skip_serializing_if = "is_default")]
    pub lets_encrypt: Option<LetsEncrypt>,
    /// Which hosts are served.
    pub virtual_hosts: Vec<VirtualHost>,
    /// By whom.
    pub backends: Vec<Backend>,
    /// What must become of certain requests; a configuration in which that is otherwise is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub tests: Vec<Case>,
}

impl Config {
    /// The keys in which `new` differs from this configuration, which the process started with, and that
    /// nothing can change while it runs.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let keys = [
            ("proxy.listen_addr_http", self.proxy.listen_addr_http != new.proxy.listen_addr_http),
            ("proxy.listen_addr", self.proxy.listen_addr != new.proxy.listen_addr),
            ("proxy.management_api_addr", self.proxy.management_api_addr != new.proxy.management_api_addr),
            ("proxy.management_api", self.proxy.management_api != new.proxy.management_api),
            ("proxy.cookie_key_env", self.proxy.cookie_key_env != new.proxy.cookie_key_env),
            ("proxy.max_connections", self.proxy.max_connections != new.proxy.max_connections),
            (
                "proxy.shutdown_timeout_secs",
                self.proxy.shutdown_timeout_secs != new.proxy.shutdown_timeout_secs,
            ),
            ("proxy.nameservers", self.proxy.nameservers != new.proxy.nameservers),
            ("proxy.threads", self.proxy.threads != new.proxy.threads),
            ("proxy.pid_file", self.proxy.pid_file != new.proxy.pid_file),
            ("proxy.upgrade_sock", self.proxy.upgrade_sock != new.proxy.upgrade_sock),
            ("proxy.user", self.proxy.user != new.proxy.user),
            ("proxy.group", self.proxy.group != new.proxy.group),
            ("logging", self.logging != new.logging),
            ("metrics", self.metrics != new.metrics),
            ("admin.token_env", self.admin.token_env != new.admin.token_env),
            ("admin.token_file", self.admin.token_file != new.admin.token_file),
            ("upstream.keepalive_pool_size", self.keepalive_pool_size() != new.keepalive_pool_size()),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// The virtual host with this domain, as it is written.
    pub fn virtual_host(&self, domain: &str) -> Option<&VirtualHost> {
        self.virtual_hosts.iter().find(|host| host.domain == domain)
    }

    /// Every table that says how backends are probed.
    pub fn health_checks(&self) -> impl Iterator<Item = &HealthCheck> {
        let of_hosts = self.virtual_hosts.iter().flat_map(|host| {
            let of_routes = host.routes.iter().filter_map(|route| route.health_check.as_ref());
            of_routes.chain(&host.health_check)
        });
        of_hosts.chain([&self.health_check])
    }

    /// How many idle connections to backends are kept. Pingora has one pool for all of them, so the largest
    /// number of any `[upstream]` that holds somewhere counts.
    pub fn keepalive_pool_size(&self) -> NonZeroUsize {
        let size = |upstream: &Upstream| upstream.keepalive_pool_size;
        let at_top = self.upstream.as_ref().map_or(Upstream::default().keepalive_pool_size, size);
        let of_hosts = self.virtual_hosts.iter().flat_map(|host| {
            let of_host = host.upstream.as_ref().map_or(at_top, size);
            let of_routes = host.routes.iter().filter_map(|route| route.upstream.as_ref()).map(size);
            of_routes.chain([of_host])
        });
        of_hosts.max().unwrap_or(at_top)
    }
}

/// `[logging]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// trace, debug, info, warn, error, or a filter such as "info,gateway=debug".
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Where lines go.
    pub output: LogOutput,
    /// The file, when they go to one.
    pub file_path: String,
    /// Whether each request is a line.
    pub access_log: bool,
}

impl Default for Logging {
    fn default() -> Self {
        Logging {
            level: "info".to_owned(),
            format: LogFormat::Text,
            output: LogOutput::Console,
            file_path: "gateway.log".to_owned(),
            access_log: true,
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogOutput {
    /// Standard output.
    Console,
    /// The file at `file_path`, appended to.
    File,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Whether they are served.
    pub enabled: bool,
    /// Where, together with `/health`, `/livez` and `/readyz`.
    pub listen_addr: SocketAddr,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { enabled: true, listen_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)) }
    }
}

/// `[admin]`: who may use the management API, and what becomes of changes made through it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The environment variable with the token that every request must bear. Where there is no token, only
    /// this machine may ask.
    pub token_env: String,
    /// A file with the token, in place of the variable.
    pub token_file: String,
    /// Whether changes are written to the file that the configuration came from.
    pub persist: bool,
    /// How many earlier configurations are kept, to go back to.
    pub history: usize,
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            token_env: "GATEWAY_ADMIN_TOKEN".to_owned(),
            token_file: String::new(),
            persist: true,
            history: 20,
        }
    }
}

/// `[[virtual_hosts]]`: a host that is served.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualHost {
    /// The host, "*.example.com" for every host below one, or "*" for every host that no other virtual host
    /// names.
    pub domain: String,
    /// Other names for it, in the same forms.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// The tag of the backends that serve it.
    pub enabled_backends_tag: String,
    /// Whether clients that come without TLS are sent to HTTPS (308).
    pub http_to_https: bool,
    /// Whether it gets its certificate by itself, as `[lets_encrypt]` says.
    #[serde(skip_serializing_if = "is_default")]
    pub acme: bool,
    /// Its certificates, each followed by what leads to its root (PEM); one with an RSA key and one with an
    /// ECDSA key go together.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_file: OneOrMany<String>,
    /// Their keys, in the same order.
    #[serde(skip_serializing_if = "is_default")]
    pub key_file: OneOrMany<String>,
    /// Whether clients that name no host, or one without a certificate, are shown this one.
    #[serde(skip_serializing_if = "is_default")]
    pub default: bool,
    /// The authorities whose client certificates are believed (PEM); empty: none is asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub client_ca_file: String,
    /// Whether a client must have one.
    #[serde(skip_serializing_if = "is_default")]
    pub client_certificate: ClientCertificate,
    /// Other tags that get a share of its requests; the rest goes to `enabled_backends_tag`.
    #[serde(skip_serializing_if = "is_default")]
    pub split: Vec<Share>,
    /// The name of a signed cookie that keeps a client where its share once fell; empty: each request for
    /// itself.
    #[serde(skip_serializing_if = "is_default")]
    pub split_cookie: String,
    /// A guarded move to another tag, step by step, under way or ended.
    #[serde(skip_serializing_if = "is_default")]
    pub rollout: Option<Rollout>,
    /// Parts of it for which something else holds.
    #[serde(skip_serializing_if = "is_default")]
    pub routes: Vec<Route>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub health_check: Option<HealthCheck>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub balancing: Option<Balancing>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub upstream: Option<Upstream>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: Option<Retry>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub rate_limit: Option<RateLimits>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Option<Limits>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: Option<Headers>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub security_headers: Option<SecurityHeaders>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub access: Option<Access>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub auth: Option<Auth>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub cors: Option<Cors>,
    /// In place of the table at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub compression: Option<Compression>,
}

impl VirtualHost {
    /// Whether it has a certificate of its own, or gets one by ACME.
    pub fn has_certificate(&self) -> bool {
        self.acme || !self.cert_file.0.is_empty()
    }
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// Without one, or with one that is not valid, it gets 403.
    #[default]
    Required,
    /// It may; backends are told.
    Optional,
}

/// `[[backends]]`: one instance of a service, or all that a name leads to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// Its name in logs, metrics and answers.
    pub id: String,
    /// Where it listens. Required; absent only until validation.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(with = "Address")]
    pub address: Option<Address>,
    /// The pools to which it belongs.
    pub tags: Vec<String>,
    /// Its share, beside those of the others, whatever the algorithm is.
    pub weight: Weight,
    /// Whether it is used only where no other backend of the tag is usable.
    #[serde(skip_serializing_if = "is_default")]
    pub backup: bool,
    /// Whether it gets no new requests; those in flight end.
    #[serde(skip_serializing_if = "is_default")]
    pub drained: bool,
}

impl Default for Backend {
    fn default() -> Self {
        Backend {
            id: String::new(),
            address: None,
            tags: Vec::new(),
            weight: Weight::ONE,
            backup: false,
            drained: false,
        }
    }
}
