//! How the services of the process begin and end together. A process that takes over from another one may say
//! that it serves only when all of its accept loops run; and one that has handed its listeners over lets
//! clients go that do not know about it yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long an idle connection stays open after a hand-over, when nothing is in flight any more. A request that
/// its client sends meanwhile is answered, and the answer says `Connection: close`: closed at once, the connection
/// might meet the request on its way.
pub const LINGER: Duration = Duration::from_secs(5);

/// Waits for the accept loops of a process that starts.
pub struct StartupBarrier {
    says: Sender<()>,
    said: Receiver<()>,
    parts: usize,
}

/// One of those accept loops.
pub struct Part(Sender<()>);

impl Default for StartupBarrier {
    fn default() -> Self {
        let (says, said) = mpsc::channel();
        StartupBarrier { says, said, parts: 0 }
    }
}

impl StartupBarrier {
    /// One more to wait for.
    pub fn part(&mut self) -> Part {
        self.parts += 1;
        Part(self.says.clone())
    }

    /// Waits until all of them listen. False where one has ended without, or has not come to it in time.
    pub fn wait(self, within: Duration) -> bool {
        let StartupBarrier { says, said, parts } = self;
        // Whoever is left has not said it yet: without anybody left, there is nothing to wait for.
        drop(says);
        let until = Instant::now() + within;
        (0..parts).all(|_| said.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok())
    }
}

impl Part {
    /// It does.
    pub fn listens(self) {
        // Nobody waits where the process stops already.
        let _ = self.0.send(());
    }
}

/// Whether the listeners belong to another process by now, and who is still being served by this one.
#[derive(Clone)]
pub struct Drain(Arc<State>);

struct State {
    /// For who waits for it.
    begun: watch::Sender<bool>,
    /// For who asks at each response.
    has_begun: AtomicBool,
    hurries: AtomicBool,
    staying: AtomicUsize,
}

/// Somebody who is served; counted until this is dropped.
pub struct DrainGuard(Drain);

impl Default for Drain {
    fn default() -> Self {
        Drain(Arc::new(State {
            begun: watch::Sender::new(false),
            has_begun: AtomicBool::new(false),
            hurries: AtomicBool::new(false),
            staying: AtomicUsize::new(0),
        }))
    }
}

impl Drain {
    /// From now on they do.
    pub fn begin(&self) {
        self.0.has_begun.store(true, Ordering::Release);
        self.0.begun.send_replace(true);
    }

    /// Whether they do.
    pub fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::Acquire)
    }

    /// The process was told to stop all the same.
    pub fn skip_linger(&self) {
        self.0.hurries.store(true, Ordering::Release);
    }

    /// Whether idle connections may stay open for a while.
    pub fn allows_linger(&self) -> bool {
        self.has_begun() && !self.0.hurries.load(Ordering::Acquire)
    }

    /// Waits until they do.
    pub async fn begun(&self) {
        // The sender is in here.
        let _ = self.0.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Counts somebody who is served.
    pub fn stay(&self) -> DrainGuard {
        self.0.staying.fetch_add(1, Ordering::AcqRel);
        DrainGuard(self.clone())
    }

    /// Whether nobody is.
    pub fn is_idle(&self) -> bool {
        self.0.staying.load(Ordering::Acquire) == 0
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.0.0.staying.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_waited_for() {
        let mut starting = StartupBarrier::default();
        let (one, other) = (starting.part(), starting.part());
        one.listens();
        std::thread::spawn(|| other.listens());
        assert!(starting.wait(Duration::from_secs(5)));
        assert!(StartupBarrier::default().wait(Duration::ZERO), "nothing to wait for");
    }

    #[test]
    fn one_that_ends_without_listening_is_not_waited_for() {
        let mut starting = StartupBarrier::default();
        let (one, other) = (starting.part(), starting.part());
        one.listens();
        drop(other);
        assert!(!starting.wait(Duration::from_secs(3600)));

        let mut starting = StartupBarrier::default();
        let _late = starting.part();
        assert!(!starting.wait(Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn leaving_begins_once_and_counts_who_stays() {
        let leaving = Drain::default();
        let staying = leaving.stay();
        assert!(!leaving.has_begun() && !leaving.is_idle());
        leaving.begin();
        leaving.begun().await;
        assert!(leaving.has_begun() && leaving.allows_linger());
        leaving.skip_linger();
        assert!(leaving.has_begun() && !leaving.allows_linger());
        drop(staying);
        assert!(leaving.is_idle());
    }
}
