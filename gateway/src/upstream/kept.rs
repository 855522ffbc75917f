//! What is known about the connections to a backend that are kept for later requests.
//!
//! A firewall or an address translator forgets a connection on which nothing passes, and drops what comes on it later
//! without a word. To the gateway the backend then looks silent, on this connection and on all others of that age,
//! while new ones work. So a silence on a kept connection is not charged to the backend, and where several are silent
//! one after the other, none that is kept is used again.

use std::sync::atomic::{AtomicU32, Ordering};

/// Silent connections, with no answer on a kept one in between, after which all kept ones are given up.
const SILENT: u32 = 2;

/// The connections to one backend that are kept for later requests.
#[derive(Debug, Default)]
pub struct KeptConnections {
    /// Number of times that all kept connections were given up. Part of the key in Pingora's pool: those with an older
    /// number are not found any more, and close when their idle time is over.
    generation: AtomicU32,
    /// Kept connections that were silent since one was answered on.
    silent: AtomicU32,
}

impl KeptConnections {
    /// Number of times that all kept connections were given up.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Notes that a request on a kept connection was answered.
    pub fn answered(&self) {
        // A load costs nothing where the line is shared; a store would.
        if self.silent.load(Ordering::Relaxed) != 0 {
            self.silent.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that a request on a kept connection had no answer in time. Returns true where all kept connections are
    /// given up by that.
    pub fn fell_silent(&self) -> bool {
        let gives_up = self.silent.fetch_add(1, Ordering::Relaxed) + 1 == SILENT;
        if gives_up {
            self.give_up();
        }
        gives_up
    }

    /// Gives all kept connections up: the next requests are sent on new ones.
    fn give_up(&self) {
        self.silent.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_silent_ones_with_no_answer_in_between_give_all_up() {
        let kept = KeptConnections::default();
        for _ in 0..3 {
            assert!(!kept.fell_silent());
            kept.answered();
        }
        assert_eq!(kept.generation(), 0, "slow requests among others that are answered");
        assert!(!kept.fell_silent());
        assert!(kept.fell_silent());
        assert_eq!(kept.generation(), 1);
        assert!(!kept.fell_silent(), "it is counted anew");
    }
}
