//! # Config
//!
//! An operator says in a file which backends there are:
//!
//! ```toml
//! [[backends]]
//! id = "web-1"
//! address = "127.0.0.1:3001"
//! ```
//!
//! A file with a mistake must not become a proxy with a surprise: it is refused, with words that help.
//!
//! **Your task**: write `parse`. Refuse what is no TOML, keys that nobody knows (`adress`), what is no address,
//! a file without backends, and two with the same id. Each error names the key or the value that is wrong.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::prelude::*;

/// What stands in the file.
pub struct Config {
    /// Where requests go, in turns; at least one.
    pub backends: Vec<Backend>,
}

/// Somewhere to send requests.
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
        // TODO: parse with serde and toml (both are dependencies already), then check.
        Err(format!("nobody reads these {} bytes yet", text.len()))
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
