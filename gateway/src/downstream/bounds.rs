//! What bounds the head of a request, and the silence before it; over HTTP/2, how long a head may take. It may change
//! while a connection is open, so it is asked for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::head_size::HeadSize;

/// What bounds the head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How large it may be, whichever route it takes.
    pub size: HeadSize,
    /// How long it may take, from its first byte.
    pub time: Duration,
    /// How long a connection of HTTP/1 may be idle before that byte.
    pub idle: Duration,
}

/// Tells the bounds that hold at the time.
#[derive(Clone)]
pub struct HeadTerms(Arc<dyn Fn() -> Bounds + Send + Sync>);

impl HeadTerms {
    /// Those that `tell` tells.
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
