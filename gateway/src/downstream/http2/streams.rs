//! Number of open HTTP/2 streams, on one connection and on all connections together. Each stream holds a limited part
//! of a response. So the number of streams limits the memory for responses that clients do not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use prometheus::{IntCounter, IntGauge};

/// Streams of all connections together: their limit, and their counters.
#[derive(Clone, Debug)]
pub struct StreamLimit {
    /// Maximum number of streams.
    pub most: u32,
    /// Number of open streams.
    pub open: IntGauge,
    /// Number of streams that were refused because there were too many.
    pub refused: IntCounter,
}

/// Streams of a connection that are open and not answered.
#[derive(Debug)]
pub struct OpenStreams {
    here: AtomicU32,
    all: StreamLimit,
}

impl OpenStreams {
    /// Creates the count of a connection whose streams also count towards `all`. It starts at zero.
    pub fn new(all: StreamLimit) -> Arc<Self> {
        Arc::new(OpenStreams { here: AtomicU32::new(0), all })
    }

    /// Returns the number of open streams of this connection.
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

    /// Returns true if all connections together have more streams than the limit. The stream that was just opened
    /// then counts as refused, and the caller must refuse it.
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
    /// Returns the count of a connection that is the only one.
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
    fn streams_of_a_connection_count_until_it_is_over() {
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
