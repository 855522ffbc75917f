//! Demo, which runs if nothing is configured: three origins in this process, and a configuration that balances
//! requests between them. So a newcomer's first command shows a working gateway.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tracing::error;

use crate::config::{Address, Config, ConfigError, HostPort, Overrides, Parsed, Source};
use crate::listener::{self, BindError};

/// Configuration of the demo, written for learners.
const CONFIG: &str = include_str!("../config/demo.toml");

/// Origins of the demo, bound but not yet served.
pub struct DemoOrigins {
    /// Addresses of the configuration that were in use.
    busy: Vec<SocketAddr>,
    /// Listener, address and label of each origin; empty after the service has started.
    listeners: Mutex<Vec<(TcpListener, SocketAddr, String)>>,
}

/// Prepares the demo: its configuration and its origins. `variables` and `overrides` may change only the listening
/// addresses and the log.
///
/// # Errors
/// Returns an error if no port is free, or if `config/demo.toml` is wrong, which a test excludes.
pub fn prepare(
    variables: BTreeMap<String, String>,
    overrides: Overrides,
) -> Result<(Source, Parsed, DemoOrigins), DemoError> {
    let source = Source::built_in("demo.toml", CONFIG.to_owned()).with(variables, overrides);
    let written = source.read()?;
    let mut config = written.config.clone();
    let origins = DemoOrigins::bind(&mut config)?;
    let parsed = source.change(&written, &config.to_json())?;
    Ok((source, parsed, origins))
}

/// Reason why the demo cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No port is free.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The configuration of the demo is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl DemoOrigins {
    /// Binds an origin for each backend of `config`. If a port is in use, for example by the origins of a lesson, the
    /// origin gets a free port, and `config` is changed accordingly. The listeners for metrics and management get
    /// free ports in the same way, because a newcomer may already use their ports.
    fn bind(config: &mut Config) -> Result<Self, BindError> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut busy = Vec::new();
        for address in [&mut config.metrics.listen_addr, &mut config.proxy.management_api_addr] {
            if listener::bind(*address, "demo").is_err() {
                busy.push(std::mem::replace(address, free));
            }
        }
        let mut listeners = Vec::new();
        for (backend, label) in config.backends.iter_mut().zip('A'..='Z') {
            let wanted = backend.address.as_ref().and_then(|address| address.to_string().parse().ok());
            let bound = listener::bind(wanted.unwrap_or(free), "demo");
            let (listener, address) = bound.or_else(|_| {
                busy.extend(wanted);
                listener::bind(free, "demo")
            })?;
            let host = HostPort { host: address.ip().to_string(), port: address.port() };
            backend.address = Some(Address::Host(host));
            listeners.push((listener, address, label.to_string()));
        }
        Ok(DemoOrigins { busy, listeners: Mutex::new(listeners) })
    }

    /// Returns the text for a newcomer: the addresses of the demo, and commands to try.
    pub fn welcome(
        &self,
        gateway: SocketAddr,
        management: Option<SocketAddr>,
        metrics: Option<SocketAddr>,
    ) -> String {
        let listeners = self.listeners.lock();
        let origins = listeners.iter().map(|(_, address, label)| format!("{label} http://{address}"));
        let origins = origins.collect::<Vec<_>>().join("   ");
        let origin = listeners.first().map_or(gateway, |(_, address, _)| *address);
        let page = management.map_or("off".to_owned(), |address| format!("http://{address}/"));
        let metrics = metrics.map_or("off".to_owned(), |address| format!("http://{address}/metrics"));
        let busy: Vec<_> = self.busy.iter().map(SocketAddr::to_string).collect();
        let busy = match busy.is_empty() {
            true => String::new(),
            false => {
                format!(
                    "\n  Other programs use {}, so the listeners above have other ports.\n",
                    busy.join(", ")
                )
            }
        };
        format!(
            "\n\
             This is the demo gateway: there is no configuration, so it balances requests over three origins of its own.\n\
             \n\
             \x20 gateway   http://{gateway}\n\
             \x20 origins   {origins}\n\
             \x20 page      {page}\n\
             \x20 metrics   {metrics}\n\
             {busy}\
             \n\
             Try in another terminal, and watch the access log here:\n\
             \n\
             \x20 curl -s {gateway}/                         # again and again: the origins take turns\n\
             \x20 curl -s {gateway}/anything                 # the request as an origin receives it\n\
             \x20 curl -s -X POST {origin}/health/down       # origin A becomes unhealthy; undo it with /health/up\n\
             \n\
             Ctrl-C stops it. Next: cargo run -- --config gateway/config/config.example.toml\n"
        )
    }
}

#[async_trait]
impl BackgroundService for DemoOrigins {
    /// Serves the origins until the process ends, because requests in flight still need them.
    async fn start(&self, _shutdown: ShutdownWatch) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        let serve = |(listener, address, label): (TcpListener, SocketAddr, String)| async move {
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => origin::serve(listener, origin::app(&label)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                error!(%error, %address, "an origin of the demo has failed");
            }
        };
        futures::future::join_all(listeners.into_iter().map(serve)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_a_valid_configuration_over_three_origins() {
        assert_eq!(Config::parse("demo.toml", CONFIG).unwrap().backends.len(), 3);
    }

    /// Case of a newcomer who already runs Prometheus.
    #[test]
    fn demo_moves_from_ports_in_use() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::parse("demo.toml", CONFIG).unwrap();
        config.metrics.listen_addr = taken.local_addr().unwrap();
        config.proxy.management_api_addr = taken.local_addr().unwrap();
        DemoOrigins::bind(&mut config).unwrap();
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        assert_eq!((config.metrics.listen_addr, config.proxy.management_api_addr), (free, free));
    }

    #[test]
    fn welcome_names_the_addresses_that_are_in_use() {
        let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let (_busy, metrics) = listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "test").unwrap();
        let mut config = Config::default();
        config.metrics.listen_addr = metrics;
        config.proxy.management_api_addr.set_port(0);
        let origins = DemoOrigins::bind(&mut config).unwrap();
        assert_ne!(config.metrics.listen_addr, metrics);
        let said = origins.welcome(gateway, None, None);
        assert!(said.contains(&format!("Other programs use {metrics}, so")), "{said}");
        config.metrics.listen_addr.set_port(0);
        let said = DemoOrigins::bind(&mut config).unwrap().welcome(gateway, None, None);
        assert!(!said.contains("Other programs"), "{said}");
    }
}
