//! From a validated configuration to a [`Snapshot`].

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::snapshot::{Route, Snapshot};
use crate::config::{self, Config, HostPort, RateLimitScope, VirtualHost};
use crate::policy::headers::HeaderRules;
use crate::policy::rate_limit::{Counters, RateLimiter};
use crate::route::HostTable;
use crate::telemetry::Metrics;
use crate::upstream::{BackendState, Pool, Transport};

/// The route of a virtual host that has no routes of its own.
const WHOLE_HOST: &str = "/";

/// Why a configuration cannot run here, although nothing is wrong with it as such.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A backend's name leads nowhere.
    #[error("cannot resolve '{address}', the address of backend '{id}': {reason}")]
    Resolve {
        /// The backend.
        id: String,
        /// What it has for an address.
        address: HostPort,
        /// What the resolver said.
        reason: String,
    },
    /// Something that validation should have refused.
    #[error("the configuration was not validated: {0}")]
    NotValidated(&'static str),
}

/// Compiles `config`. Names of backends are resolved, which may take the resolver's time.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(config: &Config, metrics: &Metrics) -> Result<Snapshot, CompileError> {
    let backends =
        config.backends.iter().map(|backend| resolve(backend, metrics)).collect::<Result<Vec<_>, _>>()?;
    let pools = pools(config, &backends);
    let counters = OnceCell::new();
    let mut hosts = HostTable::default();
    for host in &config.virtual_hosts {
        let pool = pools.get(host.enabled_backends_tag.as_str());
        let pool = pool.ok_or(CompileError::NotValidated("a virtual host has no backends"))?;
        let route = Arc::new(route(config, host, pool.clone(), &counters, metrics));
        hosts
            .insert(&host.domain, route)
            .map_err(|_| CompileError::NotValidated("a virtual host's domain is no host"))?;
    }
    Ok(Snapshot {
        hosts,
        backends,
        keepalive_timeout: config.proxy.keepalive_timeout_secs.duration(),
        request_timeout: config.proxy.request_timeout_secs.duration(),
        unrouted: metrics.route("", ""),
    })
}

fn resolve(backend: &config::Backend, metrics: &Metrics) -> Result<Arc<BackendState>, CompileError> {
    let address = backend.address.as_ref().ok_or(CompileError::NotValidated("a backend has no address"))?;
    let failed =
        |reason: String| CompileError::Resolve { id: backend.id.clone(), address: address.clone(), reason };
    let resolved = match address.ip() {
        Some(ip) => SocketAddr::from((ip, address.port)),
        None => {
            let found = (address.host.as_str(), address.port).to_socket_addrs();
            let found: Vec<_> = found.map_err(|error| failed(error.to_string()))?.collect();
            // A name such as localhost has both kinds of address, and services listen on IPv4 more often.
            let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
            *preferred.ok_or_else(|| failed("the name has no address".to_owned()))?
        }
    };
    Ok(Arc::new(BackendState::new(backend.id.clone(), resolved, metrics.backend(&backend.id))))
}

fn pools<'c>(config: &'c Config, backends: &[Arc<BackendState>]) -> HashMap<&'c str, Arc<Pool>> {
    let mut members: HashMap<&str, Vec<Arc<BackendState>>> = HashMap::new();
    for (backend, state) in config.backends.iter().zip(backends) {
        for tag in &backend.tags {
            members.entry(tag).or_default().push(state.clone());
        }
    }
    let pool = |(tag, members): (&'c str, Vec<_>)| {
        (tag, Arc::new(Pool::new(tag.to_owned(), members, config.balancing.algorithm)))
    };
    members.into_iter().map(pool).collect()
}

/// `counters` are for all rate limits together, and only made where there is one.
fn route(
    config: &Config,
    host: &VirtualHost,
    pool: Arc<Pool>,
    counters: &OnceCell<Arc<Counters>>,
    metrics: &Metrics,
) -> Route {
    let rate_limit = innermost(&host.rate_limit, &config.rate_limit).map(|limit| {
        let scope = match (limit.scope, &host.rate_limit) {
            (RateLimitScope::Route, _) => format!("route {} {WHOLE_HOST}", host.domain),
            (RateLimitScope::Global, Some(_)) => format!("host {}", host.domain),
            (RateLimitScope::Global, None) => "gateway".to_owned(),
        };
        RateLimiter::new(limit, scope, counters.get_or_init(Arc::default).clone())
    });
    Route {
        pool,
        transport: Transport::from(&innermost(&host.upstream, &config.upstream).cloned().unwrap_or_default()),
        attempts: innermost(&host.retry, &config.retry).cloned().unwrap_or_default().attempts.get(),
        rate_limit,
        headers: HeaderRules::from(&innermost(&host.headers, &config.headers).cloned().unwrap_or_default()),
        metrics: metrics.route(&host.domain, WHOLE_HOST),
    }
}

/// Of a policy's tables, the one that holds: the innermost, whole.
fn innermost<'c, T>(host: &'c Option<T>, top: &'c Option<T>) -> Option<&'c T> {
    host.as_ref().or(top.as_ref())
}
