//! From a validated configuration to a [`Snapshot`].

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::snapshot::{Route, Snapshot};
use crate::config::{Config, HostPort, RateLimitScope, VirtualHost};
use crate::policy::headers::HeaderRules;
use crate::policy::rate_limit::{Counters, RateLimiter};
use crate::route::HostTable;
use crate::telemetry::Metrics;
use crate::upstream::{BackendState, PeerSettings, Pool};

/// The route of a virtual host that has no routes of its own.
const WHOLE_HOST: &str = "/";

/// Why a configuration cannot run here, although nothing is wrong with it as such.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Backends whose names lead nowhere.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Unresolved(Vec<Unresolved>),
    /// Something that validation should have refused.
    #[error("the configuration was not validated: {0}")]
    NotValidated(&'static str),
}

/// A backend whose name leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve '{address}', the address of backend '{id}': {reason}")]
pub struct Unresolved {
    id: String,
    address: HostPort,
    /// What the resolver said.
    reason: String,
}

/// Compiles `config`. Names of backends are resolved, which may take the resolver's time.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(config: &Config, metrics: &Metrics) -> Result<Snapshot, CompileError> {
    let backends = backends(config, metrics)?;
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

/// Every backend, or every one whose name leads nowhere.
fn backends(config: &Config, metrics: &Metrics) -> Result<Vec<Arc<BackendState>>, CompileError> {
    let (mut backends, mut unresolved) = (Vec::new(), Vec::new());
    for backend in &config.backends {
        let address =
            backend.address.as_ref().ok_or(CompileError::NotValidated("a backend has no address"))?;
        match resolve(address) {
            Ok(resolved) => {
                let metrics = metrics.backend(&backend.id);
                backends.push(Arc::new(BackendState::new(backend.id.clone(), resolved, metrics)));
            }
            Err(reason) => {
                unresolved.push(Unresolved { id: backend.id.clone(), address: address.clone(), reason })
            }
        }
    }
    if unresolved.is_empty() { Ok(backends) } else { Err(CompileError::Unresolved(unresolved)) }
}

/// The address of a backend now, or what the resolver said.
fn resolve(address: &HostPort) -> Result<SocketAddr, String> {
    if let Some(ip) = address.ip() {
        return Ok(SocketAddr::from((ip, address.port)));
    }
    let found = (address.host.as_str(), address.port).to_socket_addrs().map_err(|error| error.to_string())?;
    let found: Vec<SocketAddr> = found.collect();
    // A name such as localhost has both kinds of address, and services listen on IPv4 more often.
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    preferred.copied().ok_or_else(|| "the name has no address".to_owned())
}

fn pools<'c>(config: &'c Config, backends: &[Arc<BackendState>]) -> HashMap<&'c str, Arc<Pool>> {
    let mut members: HashMap<&str, Vec<Arc<BackendState>>> = HashMap::new();
    for (backend, state) in config.backends.iter().zip(backends) {
        for tag in &backend.tags {
            members.entry(tag).or_default().push(state.clone());
        }
    }
    let pool =
        |(tag, members): (&'c str, Vec<_>)| (tag, Arc::new(Pool::new(members, config.balancing.algorithm)));
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
        peers: PeerSettings::from(&innermost(&host.upstream, &config.upstream).cloned().unwrap_or_default()),
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
