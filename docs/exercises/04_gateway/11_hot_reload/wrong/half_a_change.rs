//! Wrong: The name is stored before the upstream is parsed: a bad text changes half of the configuration.
//! Caught: "X-Config after three reloads that were refused"

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use serde::Deserialize;

use crate::peer::peer;

/// Configuration of the proxy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the configuration. Clients get it in `X-Config`.
    pub name: String,
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

/// Proxy that forwards every request to the upstream in the current configuration.
pub struct Reloadable {
    live: ArcSwap<Config>,
}

impl Reloadable {
    /// Returns a proxy that begins with `config`.
    pub fn new(config: Config) -> Reloadable {
        Reloadable { live: ArcSwap::from_pointee(config) }
    }

    /// Replaces the configuration by the one in `text`.
    ///
    /// # Errors
    /// Returns a message that says what is wrong with `text`. The configuration is then unchanged.
    pub fn reload(&self, text: &str) -> std::result::Result<(), String> {
        let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(name) = table.get("name").and_then(|name| name.as_str()) {
            self.live.store(Arc::new(Config { name: name.to_owned(), upstream: self.live.load().upstream }));
        }
        let config: Config = table.try_into().map_err(|error: toml::de::Error| error.to_string())?;
        self.live.store(Arc::new(config));
        Ok(())
    }
}

#[async_trait]
impl ProxyHttp for Reloadable {
    type CTX = Arc<Config>;
    fn new_ctx(&self) -> Arc<Config> {
        self.live.load_full()
    }

    async fn upstream_peer(&self, _session: &mut Session, config: &mut Arc<Config>) -> Result<Box<HttpPeer>> {
        Ok(peer(config.upstream))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        config: &mut Arc<Config>,
    ) -> Result<()> {
        response.insert_header("X-Config", &config.name)
    }
}
