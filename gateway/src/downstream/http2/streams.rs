//! How many streams are open over HTTP/2: on a connection, and on all of them together. What the gateway holds of
//! responses that clients do not take is bounded by that, since each stream holds so much at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use prometheus::{IntCounter, IntGauge};

/// The streams of all connections together.
#[derive(Clone, Debug)]
pub struct StreamLimit {
    /// Maximum number of streams.
    pub most: u32,
    /// Number of streams that are open.
    pub open: IntGauge,
    /// Number of streams that were refused because there were too many.
    pub refused: IntCounter,
}

/// The streams of a connection that have been opened and not answered.
#[derive(Debug)]
pub struct OpenStreams {
    here: AtomicU32,
    all: StreamLimit,
}

impl OpenStreams {
    /// Returns none, of a connection whose streams count towards `all`.
    pub fn new(all: StreamLimit) -> Arc<Self> {
        Arc::new(OpenStreams { here: AtomicU32::new(0), all })
    }

    /// Returns how many there are.
    pub fn count(&self) -> u32 {
        self.here.load(Ordering::Relaxed)
    }

    /// Counts a stream that is opened.
    pub(super) fn open(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.all.open.inc();
    }

    /// Counts a stream that is answered or reset.
    pub(super) fn close(&self) {
        self.here.fetch_sub(1, Ordering::Relaxed);
        self.all.open.dec();
    }

    /// Returns true where all connections together have more streams than they may, and the one that was just opened
    /// must be refused.
    pub(super) fn are_too_many(&self) -> bool {
        let are_too_many = self.all.open.get() > i64::from(self.all.most);
        if are_too_many {
            self.all.refused.inc();
        }
        are_too_many
    }
}

impl Drop for OpenStreams {
    fn drop(&mut self) {
        self.all.open.sub(self.count().into());
    }
}

#[cfg(test)]
impl OpenStreams {
    /// Returns those of a connection that is the only one.
    pub(in crate::downstream) fn alone() -> Arc<Self> {
        let open = IntGauge::new("open", "open").unwrap();
        let refused = IntCounter::new("refused", "refused").unwrap();
        OpenStreams::new(StreamLimit { most: 3, open, refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_with_all_others_until_it_is_over() {
        let one = OpenStreams::alone();
        let other = OpenStreams::new(one.all.clone());
        (0..3).for_each(|_| one.open());
        assert!(!one.are_too_many() && one.count() == 3);
        other.open();
        assert!(other.are_too_many() && other.count() == 1);
        other.close();
        assert!(!other.are_too_many());
        other.open();
        drop(one);
        assert!(!other.are_too_many());
        assert_eq!((other.all.open.get(), other.all.refused.get()), (1, 1));
    }
}
