//! Config: the backends stand in a file, which is checked whole before anything starts.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::prelude::*;
use serde::Deserialize;

/// What stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where requests go, in turns; at least one.
    pub backends: Vec<Backend>,
}

/// Somewhere to send requests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// What it is called; no two have the same.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Config {
    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// What is wrong, for the person who wrote it.
    pub fn parse(text: &str) -> std::result::Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        if config.backends.is_empty() {
            return Err("`backends` is empty: at least one is needed".to_owned());
        }
        let mut ids = HashSet::new();
        match config.backends.iter().find(|backend| !ids.insert(&backend.id)) {
            Some(again) => Err(format!("two backends have the id '{}'", again.id)),
            None => Ok(config),
        }
    }
}

/// Forwards each request to the next backend.
pub struct Balancer {
    /// What the operator wants.
    pub config: Config,
    /// How many requests there have been.
    pub turn: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // There is at least one: `parse` has seen to it.
        let backend = &self.config.backends[turn % self.config.backends.len()];
        Ok(Box::new(HttpPeer::new(backend.address, false, String::new())))
    }
}
