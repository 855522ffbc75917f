//! Background service that orders certificates when they are due, and reports each new certificate.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::time::sleep;

use super::orders::Orders;
use super::{AcmePlan, Challenges, Statuses, Timing};
use crate::telemetry::Metrics;
use crate::tls::acme::manager::CertificateManager;

/// Service that orders and renews certificates until the server stops.
pub struct AcmeService {
    /// Planned certificates; a reload of the configuration changes them.
    pub plan: watch::Receiver<Arc<AcmePlan>>,
    /// Answers for ACME servers that validate a name.
    pub challenges: Arc<Challenges>,
    /// Published statuses of the certificates.
    pub statuses: Arc<Statuses>,
    /// Callback that gets the domain of each certificate whose file was replaced. The callback may block.
    pub tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// Metrics that count the orders.
    pub metrics: Arc<Metrics>,
    /// Intervals and timeouts of the orders.
    pub timing: Timing,
}

#[async_trait]
impl BackgroundService for AcmeService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            // Orders in progress are dropped at shutdown: answers are withdrawn, and no file is left half written.
            () = self.follow() => {}
            _ = shutdown.changed() => {}
        }
    }
}

impl AcmeService {
    async fn follow(&self) {
        let mut plan = self.plan.clone();
        let orders = Orders::new(self.challenges.clone(), self.timing);
        let mut manager = CertificateManager::new(orders, self.metrics.clone(), self.timing);
        loop {
            let current = plan.borrow_and_update().clone();
            manager.follow(&current);
            manager.order_what_is_due(SystemTime::now());
            self.statuses.publish(manager.statuses());
            tokio::select! {
                () = sleep(manager.nap(SystemTime::now())) => {}
                changed = plan.changed() => if changed.is_err() { return },
                Some(ordered) = manager.next_outcome() => {
                    if let Some(domain) = manager.take_in(ordered, SystemTime::now()) {
                        // The statuses are published first, so that the callback finds them up to date.
                        self.statuses.publish(manager.statuses());
                        let tell = self.tell.clone();
                        // The callback reports its errors itself.
                        let _ = tokio::task::spawn_blocking(move || tell(&domain)).await;
                    }
                }
            }
        }
    }
}
