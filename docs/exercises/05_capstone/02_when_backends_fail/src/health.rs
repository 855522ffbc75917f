//! Health checks: a background service connects to each backend, so that no client has to find a dead one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::live::Live;

/// Service that probes the backends of the current snapshot.
pub struct HealthChecker(pub Arc<Live>);

#[async_trait]
impl BackgroundService for HealthChecker {
    async fn start(&self, _shutdown: ShutdownWatch) {
        loop {
            let snapshot = self.0.load();
            join_all(snapshot.backends.iter().map(async |backend| {
                let connected = timeout(Duration::from_secs(1), TcpStream::connect(backend.address)).await;
                backend.is_failing.store(!matches!(connected, Ok(Ok(_))), Ordering::Relaxed);
            }))
            .await;
            sleep(Duration::from_secs(snapshot.config.policy.health_check_interval_secs)).await;
        }
    }
}
