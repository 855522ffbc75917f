//! State of the idle connections to a backend.
//!
//! A firewall or an address translator forgets a connection that has been idle for long, and later drops packets on it
//! without notice. To the gateway the backend then looks silent on this connection and on all others of that age,
//! while new connections work. Therefore a silent idle connection does not count as a failure of the backend. If
//! several idle connections are silent in a row, all of them are given up.

use std::sync::atomic::{AtomicU32, Ordering};

/// Number of consecutive silent connections after which all idle connections are given up.
const SILENT: u32 = 2;

/// State of the idle connections to one backend.
#[derive(Debug, Default)]
pub struct IdleConnections {
    /// Number of times that all idle connections were given up. It is part of the key in Pingora's pool: connections
    /// with an older number are not found any more, and close when their idle timeout is over.
    generation: AtomicU32,
    /// Number of reused connections that have been silent since the last response on a reused connection.
    silent: AtomicU32,
}

impl IdleConnections {
    /// Returns the number of times that all idle connections were given up.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Notes that a request on a reused connection got a response.
    pub fn answered(&self) {
        // The store is avoided, because a store to a cache line that other cores share costs more than a load.
        if self.silent.load(Ordering::Relaxed) != 0 {
            self.silent.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that a request on a reused connection got no response in time. Returns true if all idle connections are
    /// therefore given up.
    pub fn fell_silent(&self) -> bool {
        let gives_up = self.silent.fetch_add(1, Ordering::Relaxed) + 1 == SILENT;
        if gives_up {
            self.give_up();
        }
        gives_up
    }

    /// Gives up all idle connections: the next requests are sent on new ones.
    fn give_up(&self) {
        self.silent.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_connections_in_a_row_give_up_all_idle_ones() {
        let kept = IdleConnections::default();
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
