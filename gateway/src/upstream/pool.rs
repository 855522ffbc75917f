//! The backends that bear a tag, and the choice among them.

use std::sync::Arc;

use super::{Attempt, BackendState, RoundRobin};
use crate::config::Algorithm;

/// A pool of backends.
pub struct Pool {
    backends: Vec<Arc<BackendState>>,
    balance: RoundRobin,
}

impl Pool {
    /// A pool in which `algorithm` chooses.
    pub fn new(backends: Vec<Arc<BackendState>>, algorithm: Algorithm) -> Self {
        let balance = match algorithm {
            Algorithm::RoundRobin => RoundRobin::default(),
        };
        Pool { backends, balance }
    }

    /// Its backends.
    pub fn backends(&self) -> &[Arc<BackendState>] {
        &self.backends
    }

    /// The backend on which an attempt would begin now; it is nobody's turn by that.
    pub fn next(&self) -> Option<&Arc<BackendState>> {
        self.balance.peek(&self.backends, BackendState::is_usable)
    }

    /// Begins an attempt on a usable backend: one that is not among `failed` where any is left, else any of
    /// them (a connection that the backend closed as the request came is worth a second one). `None` where
    /// no backend is usable.
    pub fn begin_attempt(&self, failed: &[Arc<BackendState>]) -> Option<Attempt> {
        let fresh = |backend: &BackendState| {
            backend.is_usable() && !failed.iter().any(|f| std::ptr::eq(&**f, backend))
        };
        let picked = self.balance.pick(&self.backends, fresh);
        let picked = picked.or_else(|| self.balance.pick(&self.backends, BackendState::is_usable))?;
        Some(Attempt::begin(picked.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::upstream::backend::tests::backend;

    #[test]
    fn a_backend_that_failed_comes_last() {
        let metrics = Metrics::new().unwrap();
        let (a, b) = (backend(&metrics, "a"), backend(&metrics, "b"));
        let pool = Pool::new(vec![a.clone(), b.clone()], Algorithm::RoundRobin);
        let id = |failed: &[Arc<BackendState>]| {
            pool.begin_attempt(failed).map(|attempt| attempt.backend().id.clone())
        };
        for _ in 0..4 {
            assert_eq!(id(std::slice::from_ref(&a)).as_deref(), Some("b"));
        }
        assert!(id(&[a.clone(), b.clone()]).is_some(), "where all failed, any will do");
        b.set_healthy(false);
        assert_eq!(id(std::slice::from_ref(&a)).as_deref(), Some("a"));
        a.set_healthy(false);
        assert_eq!(id(&[]), None);
    }
}
