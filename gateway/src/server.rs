//! Puts everything together: listeners, proxy, background services, on one Pingora server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::proxy::http_proxy;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::services::background::background_service;
use tracing::info;

use crate::admin::{Monitor, Readiness};
use crate::config::Config;
use crate::demo::DemoOrigins;
use crate::listener::{self, BindError, Connections, ProxyService};
use crate::live::{CompileError, Store, compile};
use crate::proxy::Gateway;
use crate::shutdown::{StopSignals, run_until_stopped};
use crate::telemetry::Metrics;
use crate::telemetry::logging::{self, LoggingError};
use crate::upstream::HealthChecker;

/// Why the gateway could not start. Nothing is left running then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The log cannot be written.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The configuration cannot run here.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The system does not let signals be caught.
    #[error("cannot catch SIGTERM and SIGINT: {0}")]
    Signals(std::io::Error),
    /// Pingora does not take a probe.
    #[error("cannot set up health checks: {0}")]
    HealthCheck(Box<pingora::Error>),
    /// A metric was defined twice.
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Serves `config` until a signal ends the process. With `demo`, its origins are served as well, and the
/// newcomer is welcomed on standard error.
///
/// # Errors
/// Where it cannot start: see [`StartError`].
pub fn run(config: &Config, demo: Option<DemoOrigins>) -> Result<(), StartError> {
    let signals = StopSignals::catch().map_err(StartError::Signals)?;
    let http = config.proxy.listen_addr_http.0.iter().map(|a| listener::bind(*a, "proxy.listen_addr_http"));
    let http = http.collect::<Result<Vec<_>, _>>()?;
    let monitored = config.metrics.enabled;
    let monitor =
        monitored.then(|| listener::bind(config.metrics.listen_addr, "metrics.listen_addr")).transpose()?;
    let (log, access_log) = logging::start(&config.logging)?;

    let metrics = Arc::new(Metrics::new()?);
    let snapshot = compile(config, &metrics)?;
    let health =
        config.health_check.enabled.then(|| HealthChecker::new(&config.health_check, &snapshot.backends));
    let health = health.transpose().map_err(StartError::HealthCheck)?;
    let live = Arc::new(Store::new(snapshot));
    let connections = Arc::new(Connections::new(config.proxy.max_connections.get(), metrics.clone()));
    let readiness = Readiness::default();

    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let http_addresses: Vec<SocketAddr> = http.iter().map(|(_, address)| *address).collect();
    let gateway = Gateway::new(live, metrics.clone(), access_log);
    let proxy = http_proxy(&server.configuration, gateway);
    server.add_service(ProxyService::new(proxy, http, connections.clone()));
    if let Some(health) = health {
        server.add_service(background_service("health checks", health));
    }
    let (monitor, monitor_address) = monitor.unzip();
    let monitor = Monitor::new(monitor, metrics, readiness.clone(), log.dropped());
    server.add_service(background_service("monitor", monitor));
    if let Some(demo) = demo {
        eprintln!("{}", demo.welcome(http_addresses[0], monitor_address));
        server.add_service(background_service("demo origins", demo));
    }

    for address in http_addresses {
        info!("listening on http://{address}");
    }
    if let Some(address) = monitor_address {
        info!("metrics on http://{address}/metrics");
    }
    run_until_stopped(
        server,
        signals,
        &connections,
        &readiness,
        config.proxy.shutdown_timeout_secs.duration(),
    );
    Ok(())
}

fn server_conf(config: &Config) -> ServerConf {
    let hosts = &config.virtual_hosts;
    let retries = hosts.iter().map(|host| &host.retry).chain([&config.retry]).flatten();
    let upstreams = hosts.iter().map(|host| &host.upstream).chain([&config.upstream]).flatten();
    let attempts = retries.map(|retry| retry.attempts.get()).max();
    let pool_size = upstreams.map(|upstream| upstream.keepalive_pool_size.get()).max();
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    // The main thread ends the process when everything is answered; Pingora only has to wait longer.
    let patience = config.proxy.shutdown_timeout_secs.duration() + Duration::from_secs(60);
    ServerConf {
        threads: if config.proxy.threads == 0 { cores() } else { config.proxy.threads },
        upstream_keepalive_pool_size: pool_size
            .unwrap_or(crate::config::Upstream::default().keepalive_pool_size.get()),
        // A ceiling over all routes; each has its own number. 0 would close connections without an answer.
        max_retries: attempts.unwrap_or(crate::config::Retry::default().attempts.get()) as usize,
        grace_period_seconds: Some(patience.as_secs()),
        ..ServerConf::default()
    }
}
