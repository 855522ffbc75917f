//! The keys of the configuration and their defaults; `gateway/config/reference.toml` explains each one.
//!
//! Everything has a default, so that a file holds only what its writer decided. What must be there (a
//! backend's `id`, say) defaults to empty, and [`validate`](super::validate) asks for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;

use serde::Deserialize;

use super::policies::{Balancing, Headers, HealthCheck, RateLimit, Retry, Upstream};
use super::routes::Route;
use super::values::{HostPort, OneOrMany, Secs};

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listeners, and what holds for every connection.
    pub proxy: Proxy,
    /// The process log and the access log.
    pub logging: Logging,
    /// The listener for metrics and health.
    pub metrics: Metrics,
    /// How backends are probed.
    pub health_check: HealthCheck,
    /// How a backend is chosen.
    pub balancing: Balancing,
    /// How backends are spoken to, where a virtual host does not say.
    pub upstream: Option<Upstream>,
    /// What is tried again, where a virtual host does not say.
    pub retry: Option<Retry>,
    /// How much a client may ask, where a virtual host does not say. Absent: any number.
    pub rate_limit: Option<RateLimit>,
    /// Which header fields are changed, where a virtual host does not say.
    pub headers: Option<Headers>,
    /// Which hosts are served.
    pub virtual_hosts: Vec<VirtualHost>,
    /// By whom.
    pub backends: Vec<Backend>,
}

impl Config {
    /// The keys in which `new` differs from this configuration, which the process started with, and that
    /// nothing can change while it runs.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let keys = [
            ("proxy.listen_addr_http", self.proxy.listen_addr_http != new.proxy.listen_addr_http),
            ("proxy.max_connections", self.proxy.max_connections != new.proxy.max_connections),
            (
                "proxy.shutdown_timeout_secs",
                self.proxy.shutdown_timeout_secs != new.proxy.shutdown_timeout_secs,
            ),
            ("proxy.threads", self.proxy.threads != new.proxy.threads),
            ("logging", self.logging != new.logging),
            ("metrics", self.metrics != new.metrics),
            ("upstream.keepalive_pool_size", self.keepalive_pool_size() != new.keepalive_pool_size()),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
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

/// `[proxy]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// The plain HTTP listeners.
    pub listen_addr_http: OneOrMany<SocketAddr>,
    /// Open client connections; more are closed at once.
    pub max_connections: NonZeroUsize,
    /// From a request's last byte to the response's first byte.
    pub request_timeout_secs: Secs,
    /// How long an idle client connection stays open.
    pub keepalive_timeout_secs: Secs,
    /// How long requests in flight may take when the gateway stops.
    pub shutdown_timeout_secs: Secs,
    /// Worker threads; 0 is one per core.
    pub threads: usize,
}

impl Default for Proxy {
    fn default() -> Self {
        Proxy {
            listen_addr_http: OneOrMany(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))]),
            max_connections: NonZeroUsize::MIN.saturating_add(9_999),
            request_timeout_secs: Secs::new(30),
            keepalive_timeout_secs: Secs::new(60),
            shutdown_timeout_secs: Secs::new(30),
            threads: 0,
        }
    }
}

/// `[logging]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogOutput {
    /// Standard output.
    Console,
    /// The file at `file_path`, appended to.
    File,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
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

/// `[[virtual_hosts]]`: a host that is served.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualHost {
    /// The host, "*.example.com" for every host below one, or "*" for every host that no other virtual host
    /// names.
    pub domain: String,
    /// Other names for it, in the same forms.
    pub aliases: Vec<String>,
    /// The tag of the backends that serve it.
    pub enabled_backends_tag: String,
    /// Whether clients are sent to HTTPS.
    pub http_to_https: bool,
    /// Parts of it for which something else holds.
    pub routes: Vec<Route>,
    /// In place of the table at the top.
    pub upstream: Option<Upstream>,
    /// In place of the table at the top.
    pub retry: Option<Retry>,
    /// In place of the table at the top.
    pub rate_limit: Option<RateLimit>,
    /// In place of the table at the top.
    pub headers: Option<Headers>,
}

/// `[[backends]]`: one instance of a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// Its name in logs, metrics and answers.
    pub id: String,
    /// Where it listens. Required; absent only until validation.
    pub address: Option<HostPort>,
    /// The pools to which it belongs.
    pub tags: Vec<String>,
}
