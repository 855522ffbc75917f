//! Reasons why a command fails.

use crate::cli::diff::AgainstError;
use crate::config::ConfigError;
use crate::demo::DemoError;
use crate::process::daemon::DaemonError;
use crate::server::StartError;
use crate::tls::SelfSignedError;

/// Reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is invalid. The message contains a line for each fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no configuration to compare with.
    #[error("gateway check: {0}")]
    Against(#[from] AgainstError),
    /// The request cannot be explained.
    #[error("gateway explain: {0}")]
    Explain(String),
    /// The certificate cannot be made.
    #[error("gateway dev-cert: {0}")]
    DevCert(#[from] SelfSignedError),
    /// The gateway cannot start.
    #[error("gateway: {0}")]
    Start(#[from] StartError),
    /// The gateway cannot start in the background.
    #[error("gateway: {0}")]
    Daemon(#[from] DaemonError),
}

impl From<DemoError> for CliError {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Bind(error) => StartError::Bind(error).into(),
            DemoError::Config(error) => error.into(),
        }
    }
}
