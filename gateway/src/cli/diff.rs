//! Compares a configuration with another file, or with the configuration that a gateway runs.

use std::path::PathBuf;
use std::time::Duration;

use http::Request;
use http::header::AUTHORIZATION;
use http_body_util::Empty;
use serde_json::Value;
use tokio::runtime::Builder;

use crate::config::{Config, ConfigError, Overrides, Source, difference, reveal_secrets};
use crate::util::http_client;

/// Timeout of the request to a gateway.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of the gateway's response, in bytes.
const MAX_BYTES: usize = 10 * 1024 * 1024;

/// Reason why there is no configuration to compare with.
#[derive(Debug, thiserror::Error)]
pub enum AgainstError {
    /// The other file is invalid.
    #[error("--against: {0}")]
    File(ConfigError),
    /// The gateway does not return its configuration.
    #[error(
        "--against {url}: {error}; expected the management API of a gateway, as in http://127.0.0.1:8081"
    )]
    Unreachable {
        /// URL of the request.
        url: String,
        /// Error of the HTTP client.
        error: String,
    },
    /// The response is not a configuration that this version of the command understands.
    #[error("--against {url}: the response is not a configuration that this version understands: {error}")]
    NotUnderstood {
        /// URL of the request.
        url: String,
        /// Description of the fault.
        error: String,
    },
}

/// Returns the changes that `config` makes to the configuration at `against` (a URL or a file), one a line.
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

/// Fetches the running configuration from the management API at `url`. The API hides secrets, so the secrets are
/// copied from `config`.
fn running_at(url: &str, config: &Config) -> Result<Config, AgainstError> {
    let url = format!("{}/api/v1/config", url.trim_end_matches('/'));
    let answer = fetch(&url, config);
    let mut json = answer.map_err(|error| AgainstError::Unreachable { url: url.clone(), error })?;
    if json.get("virtual_hosts").is_none() {
        let error = "it has no `virtual_hosts`".to_owned();
        return Err(AgainstError::NotUnderstood { url, error });
    }
    reveal_secrets(&mut json, &config.to_json());
    serde_json::from_value(json)
        .map_err(|error| AgainstError::NotUnderstood { url, error: error.to_string() })
}

/// Fetches JSON from `url`, with the token of the management API in `config`.
fn fetch(url: &str, config: &Config) -> Result<Value, String> {
    let token = match config.admin.token_file.as_str() {
        "" => std::env::var(&config.admin.token_env).ok(),
        file => std::fs::read_to_string(file).ok(),
    };
    let mut request = Request::get(url);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
    if !matches!(request.uri().scheme_str(), Some("http" | "https")) {
        return Err("bad uri: unknown scheme".to_owned());
    }
    let http = http_client::client(&[]).map_err(|error| error.to_string())?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let answer = runtime.block_on(http_client::fetch(&http, request, TIMEOUT, MAX_BYTES));
    // The runtime is not waited for, because a lookup of the name may last longer than the timeout.
    runtime.shutdown_background();
    let answer = answer?;
    if !answer.status.is_success() {
        return Err(format!("http status: {}", answer.status.as_u16()));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("json: {error}"))
}
