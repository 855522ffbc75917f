//! # Discovery
//!
//! Upstreams come and go while a proxy serves. Here a file lists them, one address on each line. An operator
//! who starts or stops an upstream edits this file. A `BackgroundService` runs beside the proxy, on a
//! separate runtime, until the server tells it to stop. It stores the list in an `ArcSwap`, and requests read
//! the list from there without a lock.
//!
//! **Your task**: write `start`. Read the file again each time `EVERY` has passed. If the list cannot be read
//! (for example, while an operator is editing it), keep the upstreams that are known. Return when `shutdown`
//! changes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use crate::peer::peer;

/// Interval at which the file is read. After an edit, the proxy may use the old list for this long.
pub const EVERY: Duration = Duration::from_millis(50);

/// Upstreams that a file lists.
pub struct Discovery {
    file: PathBuf,
    upstreams: ArcSwap<Vec<SocketAddr>>,
}

impl Discovery {
    /// Reads the upstreams that `file` lists now.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if one of its lines is not an address.
    pub fn new(file: PathBuf) -> io::Result<Discovery> {
        let discovery = Discovery { file, upstreams: ArcSwap::default() };
        discovery.upstreams.store(Arc::new(discovery.read()?));
        Ok(discovery)
    }

    fn read(&self) -> io::Result<Vec<SocketAddr>> {
        let text = std::fs::read_to_string(&self.file)?;
        text.lines().map(|line| line.parse().map_err(io::Error::other)).collect()
    }
}

#[async_trait]
impl BackgroundService for Discovery {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        // TODO: read the file again and again, until `shutdown` changes. For now, this only waits for that.
        // (`tokio::select!` waits for two things, and goes on with the first.)
        let _ = shutdown.changed().await;
        let _ = EVERY;
    }
}

/// Proxy that forwards each request to the next upstream in the current list.
pub struct Balancer {
    /// Source of the current list of upstreams.
    pub discovery: Arc<Discovery>,
    /// Number of requests so far.
    pub turn: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Balancer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let upstreams = self.discovery.upstreams.load();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match upstreams.get(turn % upstreams.len().max(1)) {
            Some(upstream) => Ok(peer(*upstream)),
            None => Error::e_explain(HTTPStatus(503), "no upstream is listed"),
        }
    }
}
