//! Running configuration. It does not change yet.

use std::sync::Arc;

use crate::config::Config;
use crate::pool::Backend;
use crate::route::Snapshot;

/// Holder of the current snapshot.
pub struct Live(Arc<Snapshot>);

impl Live {
    /// Begins with this configuration.
    pub fn new(config: Config) -> Live {
        let backends = config.backends.iter().map(Backend::new).collect();
        Live(Arc::new(Snapshot::new(config, backends)))
    }

    /// Returns the current snapshot. A request keeps it to its end.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.clone()
    }
}
