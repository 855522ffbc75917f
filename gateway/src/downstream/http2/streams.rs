//! Number of open HTTP/2 streams, on each connection and on all connections together. Each stream holds a limited part
//! of a response. So the number of streams limits the memory for responses that clients do not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use prometheus::{IntCounter, IntGauge};

/// Limit on the streams of all connections together, with their metrics.
#[derive(Clone, Debug)]
pub struct StreamLimit {
    /// Maximum number of open streams.
    pub most: u32,
    /// Number of open streams.
    pub open: IntGauge,
    /// Number of streams that were refused because there were too many.
    pub refused: IntCounter,
}

/// Count of the streams of a connection that are open and not answered.
#[derive(Debug)]
pub struct OpenStreams {
    here: AtomicU32,
    all: StreamLimit,
}

impl OpenStreams {
    /// Creates the count of a connection, which starts at zero. The connection's streams also count towards `all`.
    pub fn new(all: StreamLimit) -> Arc<Self> {
        Arc::new(OpenStreams { here: AtomicU32::new(0), all })
    }

    /// Returns the number of open streams of this connection.
    pub fn count(&self) -> u32 {
        self.here.load(Ordering::Relaxed)
    }

    /// Adds a stream that has been opened.
    pub(super) fn open(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.all.open.inc();
    }

    /// Counts one open stream less, because the stream was answered or reset.
    pub(super) fn close(&self) {
        self.here.fetch_sub(1, Ordering::Relaxed);
        self.all.open.dec();
    }

    /// Returns true if all connections together have more streams than the limit. The caller must then refuse the
    /// stream that was opened last, which this function counts as refused.
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
    /// Creates the count of a connection that is the only one.
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
