//! Which of the usable backends is asked next. No algorithm locks or allocates.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::BackendState;

/// One after the other.
#[derive(Default)]
pub struct RoundRobin {
    turn: AtomicUsize,
}

impl RoundRobin {
    /// The next of `backends` for which `usable` holds. It takes two walks over the pool: turns are
    /// counted over the usable ones alone, or the one after a dead backend would get its share as well.
    pub fn pick<'p>(
        &self,
        backends: &'p [Arc<BackendState>],
        usable: impl Fn(&BackendState) -> bool,
    ) -> Option<&'p Arc<BackendState>> {
        self.at(self.turn.fetch_add(1, Ordering::Relaxed), backends, usable)
    }

    /// The one that [`RoundRobin::pick`] would return; it is nobody's turn by that.
    pub fn peek<'p>(
        &self,
        backends: &'p [Arc<BackendState>],
        usable: impl Fn(&BackendState) -> bool,
    ) -> Option<&'p Arc<BackendState>> {
        self.at(self.turn.load(Ordering::Relaxed), backends, usable)
    }

    fn at<'p>(
        &self,
        turn: usize,
        backends: &'p [Arc<BackendState>],
        usable: impl Fn(&BackendState) -> bool,
    ) -> Option<&'p Arc<BackendState>> {
        let candidates = || backends.iter().filter(|backend| usable(backend));
        let index = turn.checked_rem(candidates().count())?;
        // Between the two walks a backend may have become unusable: then the first that is left.
        candidates().nth(index).or_else(|| candidates().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::upstream::backend::tests::backend;

    #[test]
    fn usable_backends_get_equal_shares() {
        let metrics = Metrics::new().unwrap();
        let backends: Vec<_> = ["a", "b", "c", "d"].map(|id| backend(&metrics, id)).into();
        backends[1].set_healthy(false);
        let round_robin = RoundRobin::default();
        let mut counts = [0; 4];
        for _ in 0..300 {
            let picked = round_robin.pick(&backends, BackendState::is_usable).unwrap();
            counts[backends.iter().position(|backend| Arc::ptr_eq(backend, picked)).unwrap()] += 1;
        }
        assert_eq!(counts, [100, 0, 100, 100]);
    }

    #[test]
    fn nothing_usable_is_no_panic() {
        let metrics = Metrics::new().unwrap();
        let backends = vec![backend(&metrics, "a")];
        assert!(RoundRobin::default().pick(&backends, |_| false).is_none());
        assert!(RoundRobin::default().pick(&[], |_| true).is_none());
    }
}
