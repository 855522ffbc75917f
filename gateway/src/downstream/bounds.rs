//! Limits of a request head: its size, its time, and the idle time before it. Over HTTP/2 only the time applies. The
//! configuration may change while a connection is open, so the limits are read anew for each head.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::head_size::HeadSize;

/// Limits of a request head.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum size of a head, for the route that allows the most.
    pub size: HeadSize,
    /// Maximum time for a whole head, from its first byte.
    pub time: Duration,
    /// Maximum idle time of an HTTP/1 connection before that first byte.
    pub idle: Duration,
}

/// Source of the limits that are in force now.
#[derive(Clone)]
pub struct HeadTerms(Arc<dyn Fn() -> Bounds + Send + Sync>);

impl HeadTerms {
    /// Creates a source that calls `tell` for the current limits.
    pub fn new(tell: impl Fn() -> Bounds + Send + Sync + 'static) -> Self {
        HeadTerms(Arc::new(tell))
    }

    pub(super) fn now(&self) -> Bounds {
        (self.0)()
    }
}

impl fmt::Debug for HeadTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadTerms")
    }
}
