//! Wrong: Only neighbours are compared: the same id twice in a long file passes.
//! Caught: "the error for an id that is used twice"

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::prelude::*;
use serde::Deserialize;

use crate::peer::peer;

/// Content of the configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Backends, which take turns. There is at least one.
    pub backends: Vec<Backend>,
}

/// Server that requests are sent to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Id of the backend. No two backends have the same id.
    pub id: String,
    /// Address on which the backend listens.
    pub address: SocketAddr,
}

impl Config {
    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// Returns a message that says what is wrong, for the person who wrote the file.
    pub fn parse(text: &str) -> std::result::Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        if config.backends.is_empty() {
            return Err("`backends` is empty: at least one is needed".to_owned());
        }
        match config.backends.windows(2).find(|two| two[0].id == two[1].id) {
            Some(two) => Err(format!("two backends have the id '{}'", two[0].id)),
            None => Ok(config),
        }
    }
}

/// Proxy that forwards each request to the next backend.
pub struct Balancer {
    /// Configuration from the operator's file.
    pub config: Config,
    /// Number of requests so far.
    pub turn: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // There is at least one backend, because `parse` refuses a file without any.
        let backend = &self.config.backends[turn % self.config.backends.len()];
        Ok(peer(backend.address))
    }
}
