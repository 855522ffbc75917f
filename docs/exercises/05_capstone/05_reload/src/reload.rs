//! Reload: SIGHUP makes the gateway read its file again.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};

use crate::live::Live;

/// Service that reloads the file at each SIGHUP.
pub struct Reloader {
    /// Configuration to replace.
    pub live: Arc<Live>,
    /// File that the configuration comes from.
    pub file: PathBuf,
}

#[async_trait]
impl BackgroundService for Reloader {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            return tracing::error!("cannot handle SIGHUP");
        };
        tracing::info!("SIGHUP reloads {}", self.file.display());
        while hangup.recv().await.is_some() {
            let text = std::fs::read_to_string(&self.file).map_err(|error| vec![error.to_string()]);
            match text.and_then(|text| self.live.reload(&text)) {
                Ok(()) => tracing::info!("reloaded"),
                Err(faults) => tracing::error!("not reloaded, nothing has changed: {}", faults.join("; ")),
            }
        }
    }
}
