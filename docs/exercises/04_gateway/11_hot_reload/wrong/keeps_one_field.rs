//! Wrong: Only the name is kept for the request: a reload between two phases mixes two configurations.
//! Caught: "the upstream of a request that began before a reload"

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
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        self.live.store(Arc::new(config));
        Ok(())
    }
}

#[async_trait]
impl ProxyHttp for Reloadable {
    type CTX = String;
    fn new_ctx(&self) -> String {
        self.live.load().name.clone()
    }

    async fn upstream_peer(&self, _session: &mut Session, _name: &mut String) -> Result<Box<HttpPeer>> {
        Ok(peer(self.live.load().upstream))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        name: &mut String,
    ) -> Result<()> {
        response.insert_header("X-Config", &*name)
    }
}
