//! Limits of a request head: its maximum size, its maximum time, and the maximum idle time before it. Over HTTP/2 only
//! the maximum time applies. The limits are read anew for each head, because the configuration may change while a
//! connection is open.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::head_size::HeadSize;

/// Limits of a request head.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum size of a head: the largest that any route allows.
    pub size: HeadSize,
    /// Maximum time from the first byte of a head to its last.
    pub time: Duration,
    /// Maximum idle time of an HTTP/1 connection before the first byte of a head.
    pub idle: Duration,
}

/// Source of the current limits of request heads.
#[derive(Clone)]
pub struct HeadTerms(Arc<dyn Fn() -> Bounds + Send + Sync>);

impl HeadTerms {
    /// Creates a source that gets the current limits from `tell`.
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
