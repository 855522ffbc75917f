//! Compares a configuration with another file, or with the configuration that a gateway runs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::config::{Config, ConfigError, Overrides, Source, difference, reveal_secrets};

/// Maximum time for the answer of a gateway.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reason why there is no configuration to compare with.
#[derive(Debug, thiserror::Error)]
pub enum AgainstError {
    /// The other file is invalid.
    #[error("--against: {0}")]
    File(ConfigError),
    /// The gateway does not answer.
    #[error(
        "--against {url}: {error}; expected the management API of a gateway, as in http://127.0.0.1:8081"
    )]
    Unreachable {
        /// URL of the request.
        url: String,
        /// Error of the HTTP client.
        error: ureq::Error,
    },
    /// The answer of the gateway is not a configuration of this version.
    #[error("--against {url}: the response is not a configuration that this version understands: {error}")]
    NotUnderstood {
        /// URL of the request.
        url: String,
        /// Description of the fault.
        error: String,
    },
}

/// Returns the changes that `config` makes to the configuration at `against`, a URL or a file; a line each.
///
/// # Errors
/// See [`AgainstError`].
pub fn changes_against(config: &Config, against: &str) -> Result<Vec<String>, AgainstError> {
    let other = match against.contains("://") {
        true => running_at(against, config)?,
        false => {
            let source = Source::new(Some(PathBuf::from(against)), Default::default(), Overrides::default());
            source.read().map_err(AgainstError::File)?.config
        }
    };
    let changes = difference(&other, config);
    Ok(if changes.is_empty() { vec!["no change".to_owned()] } else { changes })
}

/// Fetches the running configuration from the management API at `url`. The API hides secrets, so they are taken
/// from `config`.
fn running_at(url: &str, config: &Config) -> Result<Config, AgainstError> {
    let url = format!("{}/api/v1/config", url.trim_end_matches('/'));
    // The request uses no proxy and has a timeout.
    let agent = ureq::Agent::config_builder().proxy(None).timeout_global(Some(TIMEOUT)).build().new_agent();
    let mut request = agent.get(&url);
    let token = match config.admin.token_file.as_str() {
        "" => std::env::var(&config.admin.token_env).ok(),
        file => std::fs::read_to_string(file).ok(),
    };
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {}", token.trim()));
    }
    let read = |mut response: ureq::http::Response<ureq::Body>| response.body_mut().read_json::<Value>();
    let answer = request.call().and_then(read);
    let mut json = answer.map_err(|error| AgainstError::Unreachable { url: url.clone(), error })?;
    if json.get("virtual_hosts").is_none() {
        let error = "it has no `virtual_hosts`".to_owned();
        return Err(AgainstError::NotUnderstood { url, error });
    }
    reveal_secrets(&mut json, &config.to_json());
    serde_json::from_value(json)
        .map_err(|error| AgainstError::NotUnderstood { url, error: error.to_string() })
}
