//! Pools: the backends of one tag, which take turns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config;

/// A backend and its current state. There is no state yet.
pub struct Backend {
    /// Address on which the backend listens.
    pub address: SocketAddr,
}

impl Backend {
    /// Returns a backend, as the configuration describes it.
    pub fn new(config: &config::Backend) -> Arc<Backend> {
        Arc::new(Backend { address: config.address })
    }
}

/// Backends of one tag.
pub struct Pool {
    backends: Vec<Arc<Backend>>,
    turn: AtomicUsize,
}

impl Pool {
    /// Returns a pool of these backends. There must be at least one.
    pub fn new(backends: Vec<Arc<Backend>>) -> Pool {
        Pool { backends, turn: AtomicUsize::new(0) }
    }

    /// Returns the backend whose turn it is; `None` if the pool is empty.
    pub fn next(&self) -> Option<&Arc<Backend>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.backends.get(turn % self.backends.len().max(1))
    }
}
