//! The start and the drain of a process, seen by all its services. A process that takes over from another one may
//! report that it serves only when all of its accept loops run. A process that has handed its listeners over closes the
//! connections of clients that still use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Time for which an idle connection stays open after a hand-over, when nothing is in flight any more. A request that
/// arrives on it meanwhile is answered, with `Connection: close`. If the connection were closed at once, the close
/// might meet a request on its way.
pub const LINGER: Duration = Duration::from_secs(5);

/// Barrier that waits for the accept loops of a process that starts.
pub struct StartupBarrier {
    says: Sender<()>,
    said: Receiver<()>,
    parts: usize,
}

/// Accept loop that a [`StartupBarrier`] waits for.
pub struct Part(Sender<()>);

impl Default for StartupBarrier {
    fn default() -> Self {
        let (says, said) = mpsc::channel();
        StartupBarrier { says, said, parts: 0 }
    }
}

impl StartupBarrier {
    /// Adds an accept loop to wait for.
    pub fn part(&mut self) -> Part {
        self.parts += 1;
        Part(self.says.clone())
    }

    /// Waits until all accept loops listen. Returns false if one has ended before that, or does not listen in time.
    pub fn wait(self, within: Duration) -> bool {
        let StartupBarrier { says, said, parts } = self;
        // Only the accept loops that have not reported hold a sender now. If none does, the wait ends.
        drop(says);
        let until = Instant::now() + within;
        (0..parts).all(|_| said.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok())
    }
}

impl Part {
    /// Reports that the accept loop listens.
    pub fn listens(self) {
        // The receiver is gone if the process stops already.
        let _ = self.0.send(());
    }
}

/// Drain state of a process whose listeners another process has taken over. It also counts the connections of
/// operators, which are still served.
#[derive(Clone)]
pub struct Drain(Arc<DrainState>);

struct DrainState {
    /// State for tasks that wait for the drain.
    begun: watch::Sender<bool>,
    /// State for the check at each response.
    has_begun: AtomicBool,
    hurries: AtomicBool,
    guard: AtomicUsize,
}

/// Guard of a connection that is still served; the connection counts until the guard is dropped.
pub struct DrainGuard(Drain);

impl Default for Drain {
    fn default() -> Self {
        Drain(Arc::new(DrainState {
            begun: watch::Sender::new(false),
            has_begun: AtomicBool::new(false),
            hurries: AtomicBool::new(false),
            guard: AtomicUsize::new(0),
        }))
    }
}

impl Drain {
    /// Begins the drain, because the listeners now belong to another process.
    pub fn begin(&self) {
        self.0.has_begun.store(true, Ordering::Release);
        self.0.begun.send_replace(true);
    }

    /// Returns true if the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::Acquire)
    }

    /// Ends the linger time of idle connections, because the process was told to stop.
    pub fn skip_linger(&self) {
        self.0.hurries.store(true, Ordering::Release);
    }

    /// Returns true if idle connections may stay open for a while.
    pub fn allows_linger(&self) -> bool {
        self.has_begun() && !self.0.hurries.load(Ordering::Acquire)
    }

    /// Waits until the drain begins.
    pub async fn begun(&self) {
        // `self` holds the sender, so the wait cannot fail.
        let _ = self.0.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Counts a connection that is served, until the guard is dropped.
    pub fn stay(&self) -> DrainGuard {
        self.0.guard.fetch_add(1, Ordering::AcqRel);
        DrainGuard(self.clone())
    }

    /// Returns true if no counted connection is left.
    pub fn is_idle(&self) -> bool {
        self.0.guard.load(Ordering::Acquire) == 0
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.0.0.guard.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barrier_waits_for_all_accept_loops() {
        let mut barrier = StartupBarrier::default();
        let (one, other) = (barrier.part(), barrier.part());
        one.listens();
        std::thread::spawn(|| other.listens());
        assert!(barrier.wait(Duration::from_secs(5)));
        assert!(StartupBarrier::default().wait(Duration::ZERO), "nothing to wait for");
    }

    #[test]
    fn barrier_fails_on_ended_or_late_accept_loop() {
        let mut barrier = StartupBarrier::default();
        let (one, other) = (barrier.part(), barrier.part());
        one.listens();
        drop(other);
        assert!(!barrier.wait(Duration::from_secs(3600)));

        let mut barrier = StartupBarrier::default();
        let _late = barrier.part();
        assert!(!barrier.wait(Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn drain_begins_once_and_counts_guards() {
        let drain = Drain::default();
        let guard = drain.stay();
        assert!(!drain.has_begun() && !drain.is_idle());
        drain.begin();
        drain.begun().await;
        assert!(drain.has_begun() && drain.allows_linger());
        drain.skip_linger();
        assert!(drain.has_begun() && !drain.allows_linger());
        drop(guard);
        assert!(drain.is_idle());
    }
}
