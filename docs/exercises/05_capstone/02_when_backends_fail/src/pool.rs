//! Pools: the backends of one tag, the choice among them, and the budget of their retries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::breaker::Breaker;
use crate::config::{self, Policy};

/// A backend and its current state.
pub struct Backend {
    /// Id of the backend in the configuration.
    pub id: String,
    /// Address on which the backend listens.
    pub address: SocketAddr,
    /// True if the last probe failed.
    pub is_failing: AtomicBool,
    breaker: Breaker,
}

impl Backend {
    /// Returns a backend that counts as healthy until a probe fails.
    pub fn new(config: &config::Backend) -> Arc<Backend> {
        let (id, address) = (config.id.clone(), config.address);
        Arc::new(Backend { id, address, is_failing: AtomicBool::default(), breaker: Breaker::default() })
    }
}

/// Attempt to have a backend answer. A trial that ends without an outcome leaves the circuit to the next one.
pub struct Attempt {
    /// Backend of the attempt.
    pub backend: Arc<Backend>,
    is_trial: bool,
    is_recorded: bool,
}

impl Attempt {
    /// Records the outcome. Only the first outcome of an attempt counts.
    pub fn record(&mut self, success: bool, policy: &Policy) {
        if !std::mem::replace(&mut self.is_recorded, true) {
            self.backend.breaker.record(success, self.is_trial, policy, Instant::now());
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_trial && !self.is_recorded {
            self.backend.breaker.leave(Instant::now());
        }
    }
}

/// Backends of one tag.
pub struct Pool {
    backends: Vec<Arc<Backend>>,
    turn: AtomicUsize,
    /// Budget of all retries in the pool.
    pub budget: RetryBudget,
}

impl Pool {
    /// Returns a pool of these backends.
    pub fn new(backends: Vec<Arc<Backend>>) -> Pool {
        Pool { backends, turn: AtomicUsize::new(0), budget: RetryBudget(AtomicI64::new(MOST)) }
    }

    /// Begins an attempt on the next backend that is healthy and whose circuit lets the request through. A
    /// backend in `failed` is chosen only if there is no other. `None`: there is none at all.
    pub fn begin_attempt(&self, failed: &[Arc<Backend>]) -> Option<Attempt> {
        // A retry takes no turn. Otherwise, with two backends of which one fails, every request would begin with
        // the same one.
        let turn = self.turn.fetch_add(usize::from(failed.is_empty()), Ordering::Relaxed);
        let (before, after) = self.backends.split_at(turn % self.backends.len().max(1));
        let healthy = after.iter().chain(before).filter(|one| !one.is_failing.load(Ordering::Relaxed));
        let mut candidates: Vec<_> = healthy.collect();
        candidates.sort_by_key(|backend| failed.iter().any(|one| Arc::ptr_eq(one, backend)));
        candidates.into_iter().find_map(|backend| {
            let is_trial = backend.breaker.enter(Instant::now())?;
            Some(Attempt { backend: backend.clone(), is_trial, is_recorded: false })
        })
    }
}

/// Budget of retries, in hundredths of a retry. It keeps retries from multiplying an outage.
pub struct RetryBudget(AtomicI64);

/// Upper limit of a budget, and its beginning: 10 retries.
const MOST: i64 = 1000;

impl RetryBudget {
    /// Counts the first attempt of a request: 5 of them pay for a retry.
    pub fn request(&self) {
        if self.0.load(Ordering::Relaxed) < MOST {
            self.0.fetch_add(20, Ordering::Relaxed);
        }
    }

    /// Takes a retry from the budget. Returns false if the budget has none left.
    pub fn take(&self) -> bool {
        let spent = |left: i64| (left >= 100).then_some(left - 100);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }
}
