//! Start and drain of a process, for all its services. A process that takes over from another process may report that
//! it serves only when all its accept loops run. A process that has handed its listeners over closes the client
//! connections that are still open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Time for which a connection stays open after a hand-over without a request in flight. A request that arrives in
/// this time is answered, with `Connection: close`. If the connection were closed at once, a request could already be
/// on its way.
pub const LINGER: Duration = Duration::from_secs(5);

/// Barrier that opens when all accept loops of a starting process run.
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

    /// Waits until all accept loops listen. Returns false if one ends before that, or does not listen in time.
    pub fn wait(self, within: Duration) -> bool {
        let StartupBarrier { says, said, parts } = self;
        // From here on, only accept loops that have not reported have a sender. If no sender is left, the wait ends.
        drop(says);
        let until = Instant::now() + within;
        (0..parts).all(|_| said.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok())
    }
}

impl Part {
    /// Reports that the accept loop listens.
    pub fn listens(self) {
        // The receiver no longer exists if the process is already stopping.
        let _ = self.0.send(());
    }
}

/// Drain state of a process whose listeners another process has taken over. Also counts the connections of operators
/// that are still served.
#[derive(Clone)]
pub struct Drain(Arc<DrainState>);

struct DrainState {
    /// True if the drain has begun, for tasks that wait for it.
    begun: watch::Sender<bool>,
    /// True if the drain has begun, for the check at each response.
    has_begun: AtomicBool,
    hurries: AtomicBool,
    guard: AtomicUsize,
}

/// Guard of a connection of an operator. The connection is counted until the guard is dropped.
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
    /// Begins the drain, because another process now has the listeners.
    pub fn begin(&self) {
        self.0.has_begun.store(true, Ordering::Release);
        self.0.begun.send_replace(true);
    }

    /// Returns true if the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::Acquire)
    }

    /// Ends the linger time ([`LINGER`]) of idle connections, because the process was told to stop.
    pub fn skip_linger(&self) {
        self.0.hurries.store(true, Ordering::Release);
    }

    /// Returns true if idle connections may stay open for the time [`LINGER`]. False before the drain begins.
    pub fn allows_linger(&self) -> bool {
        self.has_begun() && !self.0.hurries.load(Ordering::Acquire)
    }

    /// Waits until the drain begins.
    pub async fn begun(&self) {
        // `self` holds the sender, so the wait cannot fail.
        let _ = self.0.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Counts a connection until the returned guard is dropped.
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
