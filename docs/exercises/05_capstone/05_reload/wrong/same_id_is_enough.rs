//! Wrong: a backend with the same id keeps its state and with it its old address, so a backend that has moved gets no requests.
//! Caught: "the backend that answers after the reload"

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::pool::Backend;
use crate::route::Snapshot;

/// Holder of the current snapshot.
pub struct Live(ArcSwap<Snapshot>);

impl Live {
    /// Begins with this configuration.
    pub fn new(config: Config) -> Live {
        let backends = config.backends.iter().map(Backend::new).collect();
        Live(ArcSwap::from_pointee(Snapshot::new(config, backends)))
    }

    /// Returns the current snapshot. A request keeps it to its end.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Replaces the configuration by the one in `text`. A backend that stays keeps its health and its circuit.
    ///
    /// # Errors
    /// Returns what is wrong with `text`, a line for each fault. The configuration is then unchanged.
    pub fn reload(&self, text: &str) -> Result<(), Vec<String>> {
        let config = Config::parse(text)?;
        let old = self.load();
        if config.proxy != old.config.proxy {
            return Err(vec![
                "[proxy] has changed: its listeners are open, so restart the gateway".to_owned(),
            ]);
        }
        let mut backends = Vec::new();
        for new in &config.backends {
            let known = old.backends.iter().find(|old| old.id == new.id);
            backends.push(known.cloned().unwrap_or_else(|| Backend::new(new)));
        }
        self.0.store(Arc::new(Snapshot::new(config, backends)));
        Ok(())
    }
}
