//! # Hot reload
//!
//! If every change needs a restart of the proxy, every change drops connections. So the configuration is kept
//! in an `ArcSwap`, and a reload swaps it. Two mistakes are easy to make. The first one is half a change: the
//! proxy has already used a part of the new text when the text turns out to be bad. The second one is a
//! request that sees two configurations, because a reload came between two of its phases.
//!
//! **Your task**: write `reload`, which changes everything or nothing. Then let each request keep the
//! configuration that it began with, until the request ends.

use std::net::SocketAddr;

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
        // TODO: parse with `toml::from_str::<Config>(text)`, and store the result.
        Err(format!("these {} bytes are not parsed yet", text.len()))
    }
}

#[async_trait]
impl ProxyHttp for Reloadable {
    // TODO: make `CTX` the configuration that the request began with: an `Arc<Config>`.
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.live.load().upstream))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        response.insert_header("X-Config", &self.live.load().name)
    }
}
