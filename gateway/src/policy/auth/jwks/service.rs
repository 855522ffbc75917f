//! The service in the background that has every set of keys be fetched which the configuration names.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::KeySet;

/// Fetches keys, until the server stops.
pub struct KeySetService {
    /// Which ones; it changes with the configuration.
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
        // Ends what it runs when it is dropped.
        let mut tasks = JoinSet::new();
        // By where they are: a set that is fetched cannot have gone from there.
        let mut running: HashMap<usize, AbortHandle> = HashMap::new();
        loop {
            let wanted = sets.borrow_and_update().clone();
            running.retain(|set, task| {
                let goes_on = wanted.iter().any(|wanted| Arc::as_ptr(wanted).addr() == *set);
                if !goes_on {
                    task.abort();
                }
                goes_on
            });
            for set in wanted.iter() {
                running.entry(Arc::as_ptr(set).addr()).or_insert_with(|| {
                    let set = set.clone();
                    tasks.spawn(async move { set.follow().await })
                });
            }
            if sets.changed().await.is_err() {
                return;
            }
            while tasks.try_join_next().is_some() {}
        }
    }
}
