//! Background service that fetches every key set in the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::KeySet;

/// Service that fetches key sets until the server stops.
pub struct KeySetService {
    /// Key sets to fetch. The value changes with the configuration.
    pub sets: watch::Receiver<Arc<Vec<Arc<KeySet>>>>,
}

#[async_trait]
impl BackgroundService for KeySetService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.follow() => {}
            _ = shutdown.changed() => {}
        }
    }
}

impl KeySetService {
    async fn follow(&self) {
        let mut sets = self.sets.clone();
        // The map's key is a set's address. The task keeps the set alive, so no other set gets this address.
        let mut running: HashMap<usize, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            let wanted = sets.borrow_and_update().clone();
            running.retain(|set, _| wanted.iter().any(|wanted| Arc::as_ptr(wanted).addr() == *set));
            for set in wanted.iter() {
                running.entry(Arc::as_ptr(set).addr()).or_insert_with(|| {
                    let set = set.clone();
                    AbortOnDropHandle::new(tokio::spawn(async move { set.follow().await }))
                });
            }
            if sets.changed().await.is_err() {
                return;
            }
        }
    }
}
