//! Sources of the configuration that the command line names, and the configuration that they are compiled to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::error::CliError;
use crate::config::{self, Address, Overrides, Source};
use crate::live::{Resolution, Store};
use crate::server::StartError;
use crate::telemetry::Metrics;

/// Sources of the configuration. PINGORA_* variables win over the file, and options win over both.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(super) struct Sources {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Address to listen on, instead of those in the configuration; may be given several times
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Vec<SocketAddr>,
    /// Backend for all requests, instead of the virtual hosts and backends in the configuration; may be given several
    /// times
    #[arg(long, value_name = "ADDR")]
    pub(super) backend: Vec<Address>,
    /// Log level, which overrides the configuration, RUST_LOG and PINGORA_LOG_LEVEL: trace, debug, info, warn, error, off,
    /// or a filter such as "info,gateway=debug"
    #[arg(long, value_name = "FILTER")]
    pub(super) log_level: Option<String>,
}

impl Sources {
    /// Returns the configuration file: the file that the command line names, or else the file that is found. If
    /// options or variables name backends, no file is looked for.
    pub(super) fn file(&self) -> Option<PathBuf> {
        if self.config.is_some() || !self.backend.is_empty() || config::name_backends(&variables()) {
            return self.config.clone();
        }
        config::search().inspect(|file| {
            eprintln!("gateway: the configuration is {} (choose another one with --config)", file.display());
        })
    }

    pub(super) fn overrides(&self) -> Overrides {
        let Sources { listen, backend, log_level, .. } = self;
        Overrides { listen: listen.clone(), backends: backend.clone(), log_level: log_level.clone() }
    }
}

/// Compiles the configuration to a store that is not used for traffic. No backend has been probed, so all backends
/// count as healthy.
pub(super) fn compiled(sources: &Sources) -> Result<Store, CliError> {
    let source = Source::new(sources.file(), variables(), sources.overrides());
    let parsed = source.read()?;
    let metrics = Arc::new(Metrics::new().map_err(StartError::Metrics)?);
    Ok(Store::new(source, parsed, Resolution::Unresolved, metrics)?)
}

/// Returns the environment variables of this process that the gateway uses.
pub(super) fn variables() -> BTreeMap<String, String> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    // Values that are not UTF-8 are kept in a damaged form, so that they are refused like any other bad value.
    config::set_variables(std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))))
}

pub(super) fn warn<'w>(warnings: impl IntoIterator<Item = &'w String>) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}
