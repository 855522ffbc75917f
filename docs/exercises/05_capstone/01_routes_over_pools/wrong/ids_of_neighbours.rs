//! Wrong: each id is compared only with the one before, so two backends further apart share an id, and a reload mixes them up.
//! Caught: "the faults of a file in which two backends have the same id"

use std::collections::HashSet;
use std::net::SocketAddr;

use serde::Deserialize;

/// Content of a configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listeners and the process. A change of this table needs a restart.
    pub proxy: Proxy,
    /// Policies for all requests.
    #[serde(default)]
    pub policy: Policy,
    /// Routes, in any order.
    pub routes: Vec<Route>,
    /// Backends, in any order.
    pub backends: Vec<Backend>,
}

/// Listeners and the process.
#[derive(Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// Address for clients.
    pub listen_addr_http: SocketAddr,
    /// Address for metrics.
    pub metrics_addr: SocketAddr,
    /// Maximum time for a drain.
    pub shutdown_timeout_secs: u64,
}

/// Policies for all requests. A key that is absent has its default.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Time between two probes of a backend.
    pub health_check_interval_secs: u64,
    /// Maximum number of attempts for a request, including the first.
    pub retry_attempts: usize,
    /// Number of failures in a row that opens the circuit of a backend.
    pub circuit_breaker_failures: u32,
    /// Time for which a circuit stays open. Then one request is the trial.
    pub circuit_breaker_open_secs: u32,
    /// Maximum length of a request's body.
    pub max_request_body_bytes: u64,
    /// Maximum number of requests of a client in a window.
    pub rate_limit_requests: u32,
    /// Length of the window, which begins with the client's first request.
    pub rate_limit_window_secs: u32,
}

/// Part of the site, and the pool that serves it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path that the request's path must be, or must be below.
    pub path_prefix: String,
    /// Tag of the pool's backends.
    pub tag: String,
}

/// Server that requests are sent to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Id of the backend. No two backends have the same id.
    pub id: String,
    /// Address on which the backend listens.
    pub address: SocketAddr,
    /// Tag of the pool that the backend belongs to.
    pub tag: String,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            health_check_interval_secs: 10,
            retry_attempts: 3,
            circuit_breaker_failures: 5,
            circuit_breaker_open_secs: 10,
            max_request_body_bytes: 10 << 20,
            rate_limit_requests: 1000,
            rate_limit_window_secs: 1,
        }
    }
}

impl Config {
    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// Returns every fault, a line each, for the person who wrote the file.
    pub fn parse(text: &str) -> Result<Config, Vec<String>> {
        let config: Config = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        let faults = config.faults();
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// Returns all that is wrong with the values, a line for each fault.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut require = |fine: bool, fault: String| faults.extend((!fine).then_some(fault));
        let Config { proxy, policy, routes, backends } = self;
        for (key, is_zero) in [
            ("shutdown_timeout_secs", proxy.shutdown_timeout_secs == 0),
            ("health_check_interval_secs", policy.health_check_interval_secs == 0),
            ("retry_attempts", policy.retry_attempts == 0),
            ("circuit_breaker_failures", policy.circuit_breaker_failures == 0),
            ("circuit_breaker_open_secs", policy.circuit_breaker_open_secs == 0),
            ("rate_limit_window_secs", policy.rate_limit_window_secs == 0),
        ] {
            require(!is_zero, format!("`{key}` is 0"));
        }
        require(
            proxy.listen_addr_http != proxy.metrics_addr,
            "`metrics_addr` is the same as `listen_addr_http`".to_owned(),
        );
        let mut paths = HashSet::new();
        for pair in backends.windows(2) {
            require(pair[0].id != pair[1].id, format!("two backends have the id '{}'", pair[0].id));
        }
        for Route { path_prefix, tag } in routes {
            require(
                path_prefix.starts_with('/'),
                format!("the path '{path_prefix}' does not begin with '/'"),
            );
            require(paths.insert(path_prefix), format!("two routes have the path '{path_prefix}'"));
            let is_served = backends.iter().any(|backend| backend.tag == *tag);
            require(is_served, format!("route '{path_prefix}': no backend has the tag '{tag}'"));
        }
        faults
    }
}
