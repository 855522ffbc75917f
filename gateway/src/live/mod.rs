//! What is running: a configuration, compiled, in a place where a request gets at it without a lock.

mod compile;
mod snapshot;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use compile::{CompileError, compile};
pub use snapshot::{Route, Snapshot};

// ANCHOR: store
/// Holds the snapshot that new requests start with.
pub struct Store {
    current: ArcSwap<Snapshot>,
}

impl Store {
    /// A store that begins with `snapshot`.
    pub fn new(snapshot: Snapshot) -> Self {
        Store { current: ArcSwap::from_pointee(snapshot) }
    }

    /// The current snapshot. A request keeps it to its end, whatever comes after.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}
// ANCHOR_END: store
