//! How many passwords are hashed at once: each costs tens of milliseconds of a processor, and whoever guesses sends as
//! many as the network takes. Half of the processors at most, a short queue before them, and nobody waits for long.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// So many may wait.
const MAX_WAITING: usize = 32;
/// So long.
const PATIENCE: Duration = Duration::from_secs(2);

/// One for the process: it is the process's processors that are shared.
pub(super) static HASHING: LazyLock<Hashing> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Hashing::new(processors.div_ceil(2), MAX_WAITING, PATIENCE)
});

pub(super) struct Hashing {
    running: Arc<Semaphore>,
    waiting: Semaphore,
    patience: Duration,
}

impl Hashing {
    fn new(at_once: usize, waiting: usize, patience: Duration) -> Self {
        let running = Arc::new(Semaphore::new(at_once));
        Hashing { running, waiting: Semaphore::new(waiting), patience }
    }

    /// Waits for a turn, which lasts until it is dropped; `None` where there are too many.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let _place = self.waiting.try_acquire().ok()?;
        timeout(self.patience, self.running.clone().acquire_owned()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn some_run_some_wait_and_the_rest_are_turned_away() {
        let hashing = Arc::new(Hashing::new(1, 1, PATIENCE));
        let first = hashing.turn().await.unwrap();
        let waiting = tokio::spawn({
            let hashing = hashing.clone();
            async move { hashing.turn().await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(hashing.turn().await.is_none(), "nobody else may wait");
        drop(first);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn nobody_waits_for_long() {
        let hashing = Hashing::new(1, 1, Duration::from_millis(1));
        let _held = hashing.turn().await.unwrap();
        assert!(hashing.turn().await.is_none());
    }
}
