//! Keys of the configuration and their defaults; `gateway/config/reference.toml` explains each key.
//!
//! Every key has a default, so an operator only writes the keys that differ from it. A key that must be set (for
//! example the `id` of a backend) is empty by default, and [`validate`](super::validate) reports it as missing.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::Address;
use super::cases::Case;
use super::lets_encrypt::LetsEncrypt;
use super::logging::Logging;
use super::proxy::Proxy;
use super::routes::Route;
use super::shares::{Rollout, Share};
use super::tables::{PolicyTables, policy_tables, with_policy_tables};
use super::upstream::{HealthCheck, Upstream};
use super::values::{OneOrMany, Weight, is_default};

policy_tables! { with_policy_tables "the default for virtual hosts without this table"
/// Complete configuration of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Tags that may have no backend; requests for such a tag are answered with 503. If any other tag is used without
    /// a backend, the configuration is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub empty_tags: Vec<String>,
    /// Listeners, settings for every client connection, and settings of the process.
    pub proxy: Proxy,
    /// Level, format and output of the process log and the access log.
    pub logging: Logging,
    /// Listener for metrics and health checks.
    pub metrics: Metrics,
    /// Access to the management API, and storage of the changes that are made through it.
    pub admin: Admin,
    ..policy_tables,
    /// ACME server from which virtual hosts with `acme = true` get their certificates.
    #[serde(skip_serializing_if = "is_default")]
    pub lets_encrypt: Option<LetsEncrypt>,
    /// Hosts that the gateway serves.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Backends to which the requests of the virtual hosts are forwarded.
    pub backends: Vec<Backend>,
    /// Tests: requests with their expected results. A configuration with any other result is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub tests: Vec<Case>,
}
}

impl Config {
    /// Returns the changed keys that only take effect after a restart. `self` is the configuration with which the
    /// process started, and `new` is the changed one.
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

    /// Returns the virtual host whose key `domain` has exactly this text; wildcards are not applied.
    pub fn virtual_host(&self, domain: &str) -> Option<&VirtualHost> {
        self.virtual_hosts.iter().find(|host| host.domain == domain)
    }

    /// Returns the policy tables of the top level, of each virtual host and of each route. Each comes with the path of
    /// its level: "", "virtual_hosts/0/" or "virtual_hosts/0/routes/0/".
    pub fn levels(&self) -> impl Iterator<Item = (String, PolicyTables<'_>)> {
        let of_hosts = self.virtual_hosts.iter().enumerate().flat_map(|(i, host)| {
            let of_routes = host
                .routes
                .iter()
                .enumerate()
                .map(move |(j, route)| (format!("virtual_hosts/{i}/routes/{j}/"), route.policy_tables()));
            std::iter::once((format!("virtual_hosts/{i}/"), host.policy_tables())).chain(of_routes)
        });
        std::iter::once((String::new(), self.policy_tables())).chain(of_hosts)
    }

    /// Returns true if at least one `[health_check]` table lets HTTP probes pass on any response below 500.
    pub fn has_lenient_health_check(&self) -> bool {
        self.levels().filter_map(|(_, tables)| tables.health_check).any(HealthCheck::passes_any_answer)
    }

    /// Returns the maximum number of idle connections to all backends together. Pingora has one pool for all backends,
    /// so this is the largest number in any `[upstream]` table in use.
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

/// `[metrics]`: the listener for metrics and health checks.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// True if this listener is opened; false: the gateway serves neither metrics nor health checks.
    pub enabled: bool,
    /// Address of the listener for metrics, `/health`, `/livez` and `/readyz`.
    pub listen_addr: SocketAddr,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { enabled: true, listen_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)) }
    }
}

/// `[admin]`: access to the management API, and storage of the changes made through it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Environment variable with the token that every API request must carry. If there is no token, only clients on
    /// this machine may use the API.
    pub token_env: String,
    /// File with the token, in place of the environment variable; empty: no file.
    pub token_file: String,
    /// True if changes by the API are written to the configuration file; false: a restart undoes them.
    pub persist: bool,
    /// Number of earlier configurations to which an operator can roll back.
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

policy_tables! { with_policy_tables "replaces the top-level table"
/// `[[virtual_hosts]]`: one served host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualHost {
    /// Host name, "*.example.com" (every host below `example.com`), or "*" (every host that no other virtual host
    /// names).
    pub domain: String,
    /// Further names of the host; "*.example.com" and "*" are allowed here, too.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// Tag of the backends to which the host's requests are forwarded.
    pub enabled_backends_tag: String,
    /// True if requests over plain HTTP are redirected to HTTPS (308); false: they are served over plain HTTP.
    pub http_to_https: bool,
    /// True if the gateway gets the host's certificate by ACME, from the server in `[lets_encrypt]`.
    #[serde(skip_serializing_if = "is_default")]
    pub acme: bool,
    /// Certificate files of the host (PEM). Each file contains a certificate and the chain to its root. A host can
    /// have two certificates: one with an RSA key and one with an ECDSA key.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_file: OneOrMany<String>,
    /// Key files of the certificates, in the same order.
    #[serde(skip_serializing_if = "is_default")]
    pub key_file: OneOrMany<String>,
    /// True if this certificate is also presented to clients whose SNI is missing or matches no certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub default: bool,
    /// Certificate authorities (PEM) that must have issued the client certificates. Empty: the gateway requests no
    /// client certificate.
    #[serde(skip_serializing_if = "is_default")]
    pub client_ca_file: String,
    /// Setting that says whether clients must present a certificate. Only used with `client_ca_file`.
    #[serde(skip_serializing_if = "is_default")]
    pub client_certificate: ClientCertificate,
    /// Other tags, each with its share of the host's requests; the remaining requests go to `enabled_backends_tag`.
    #[serde(skip_serializing_if = "is_default")]
    pub split: Vec<Share>,
    /// Name of a signed cookie that keeps a client at the tag of its first request. Empty: the tag is chosen anew for
    /// each request.
    #[serde(skip_serializing_if = "is_default")]
    pub split_cookie: String,
    /// Monitored step-by-step move of the requests to another tag. The move may still run or be over.
    #[serde(skip_serializing_if = "is_default")]
    pub rollout: Option<Rollout>,
    /// Routes: groups of the host's requests with separate settings.
    #[serde(skip_serializing_if = "is_default")]
    pub routes: Vec<Route>,
    ..policy_tables,
}
}

impl VirtualHost {
    /// Returns true if the host has its own certificate or gets one by ACME.
    pub fn has_certificate(&self) -> bool {
        self.acme || !self.cert_file.0.is_empty()
    }
}

/// Setting that says whether clients must present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// Clients must present a valid certificate; a request without one is answered with 403.
    #[default]
    Required,
    /// Clients may present a certificate or none; backends are told about a presented certificate.
    Optional,
}

/// `[[backends]]`: one instance of a service, or every instance to whose address a name resolves.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// Name of the backend in logs, metrics and responses.
    pub id: String,
    /// Address of the backend. The key is required; `None` only occurs before validation.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(with = "Address")]
    pub address: Option<Address>,
    /// Tags of the backend; for each tag, the backend is a member of the pool with that tag.
    pub tags: Vec<String>,
    /// Weight of the backend relative to the other backends of its pool; used by every balancing algorithm.
    pub weight: Weight,
    /// True if the backend is only used while no other backend of the tag is usable; false: it is a normal backend.
    #[serde(skip_serializing_if = "is_default")]
    pub backup: bool,
    /// True if the backend gets no new requests, while requests in flight may finish; false: it is used normally.
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
