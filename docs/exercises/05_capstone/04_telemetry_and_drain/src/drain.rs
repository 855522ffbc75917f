//! Drain: the process ends as soon as nothing is in flight, and not only after the whole grace period.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::time::{Instant, sleep};

use crate::telemetry::Telemetry;

/// Waits until no request has been in flight for 300 ms. In this time, a request that has been sent arrives.
pub async fn drained(telemetry: &Telemetry) {
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_millis(300) {
        sleep(Duration::from_millis(10)).await;
        if telemetry.in_flight() > 0 {
            quiet_since = Instant::now();
        }
    }
}

/// Service that ends the process at the end of a drain. If the grace period ends before, Pingora ends it.
pub struct Drain(pub Arc<Telemetry>);

#[async_trait]
impl BackgroundService for Drain {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        // An error means that the server is gone, which is the end as well.
        let _ = shutdown.changed().await;
        drained(&self.0).await;
        std::process::exit(0);
    }
}
