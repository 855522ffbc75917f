//! # Hot reload
//!
//! A proxy that has to be restarted for every change drops connections for every change. So what is configured
//! lives behind an `ArcSwap`, and a reload swaps it. Two things go wrong easily: half a change (the new text
//! turns out to be bad after something has been taken from it), and a request that sees two configurations
//! because a reload came between two of its phases.
//!
//! **Your task**: write `reload`, which changes everything or nothing; and let a request keep to its end the
//! configuration that it began with.

use std::net::SocketAddr;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use serde::Deserialize;

/// What is configured.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which configuration this is; clients are told in `X-Config`.
    pub name: String,
    /// Where requests go.
    pub upstream: SocketAddr,
}

/// Forwards every request to the upstream that is configured at the moment.
pub struct Reloadable {
    live: ArcSwap<Config>,
}

impl Reloadable {
    /// Begins with this configuration.
    pub fn new(config: Config) -> Reloadable {
        Reloadable { live: ArcSwap::from_pointee(config) }
    }

    /// Takes over the configuration that `text` is.
    ///
    /// # Errors
    /// What is wrong with it; then everything is as it was.
    pub fn reload(&self, text: &str) -> std::result::Result<(), String> {
        // TODO: `toml::from_str::<Config>(text)`, and store what comes out.
        Err(format!("nobody reads these {} bytes yet", text.len()))
    }
}

#[async_trait]
impl ProxyHttp for Reloadable {
    // TODO: `CTX` shall be the configuration that the request began with: an `Arc<Config>`.
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.live.load().upstream, false, String::new())))
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
