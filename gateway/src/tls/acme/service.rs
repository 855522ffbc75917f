//! The service in the background: it has certificates ordered that are due, and tells of those that are there.

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
use crate::tls::acme::manager::Book;

/// Gets certificates and renews them, until the server stops.
pub struct AcmeService {
    /// Which ones; it changes with the configuration.
    pub plan: watch::Receiver<Arc<AcmePlan>>,
    /// Where ACME servers find their answers.
    pub challenges: Arc<Challenges>,
    /// Where it is told how the certificates are.
    pub statuses: Arc<Statuses>,
    /// Told the domain of a certificate whose file is another one now; it may take its time.
    pub tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// Where orders are counted.
    pub metrics: Arc<Metrics>,
    /// How fast things go.
    pub pace: Timing,
}

#[async_trait]
impl BackgroundService for AcmeService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            // Orders that are under way end with it: their answers are taken back, and nothing is half written.
            () = self.follow() => {}
            _ = shutdown.changed() => {}
        }
    }
}

impl AcmeService {
    async fn follow(&self) {
        let mut plan = self.plan.clone();
        let orders = Orders::new(self.challenges.clone(), self.pace);
        let mut book = Book::new(orders, self.metrics.clone(), self.pace);
        loop {
            let current = plan.borrow_and_update().clone();
            book.follow(&current);
            book.order_what_is_due(SystemTime::now());
            self.statuses.publish(book.statuses());
            tokio::select! {
                () = sleep(book.nap(SystemTime::now())) => {}
                changed = plan.changed() => if changed.is_err() { return },
                Some(ordered) = book.next_outcome() => {
                    if let Some(domain) = book.take_in(ordered, SystemTime::now()) {
                        // Before anybody is told, so that who is told can look.
                        self.statuses.publish(book.statuses());
                        let tell = self.tell.clone();
                        // Where that fails, it is said there.
                        let _ = tokio::task::spawn_blocking(move || tell(&domain)).await;
                    }
                }
            }
        }
    }
}
