//! State of every certificate: its due time, its current order, and the last result. The service drives it:
//! it asks for due orders and reports their outcomes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{info, warn};

use super::orders::{Fulfilled, Orders};
use super::problem::OrderError;
use super::schedule::renewal;
use super::{AcmePlan, AcmeState, AcmeStatus, Cache, Certificate, Server, Timing, Wanted};
use crate::telemetry::{AcmeMetrics, Metrics};

/// Maximum time between two checks for due certificates. The timers do not notice if the machine sleeps or
/// its clock is set.
const LONGEST_NAP: Duration = Duration::from_secs(10 * 60);

/// Result of an order's task.
pub(super) type Ordered = Result<(Id, Result<Fulfilled, OrderError>), JoinError>;

/// State of all certificates.
pub(super) struct Book {
    /// Certificates by domain.
    entries: BTreeMap<String, CertificateEntry>,
    under_way: JoinSet<Result<Fulfilled, OrderError>>,
    /// Server and certificate of each order, by task.
    ordered: HashMap<Id, (Arc<Server>, Wanted)>,
    orders: Arc<Orders>,
    metrics: Arc<Metrics>,
    pace: Timing,
}

/// State of one certificate.
struct CertificateEntry {
    wanted: Wanted,
    server: Arc<Server>,
    /// Certificate that is served now.
    certificate: Option<Certificate>,
    due: SystemTime,
    failures: u32,
    last_error: Option<String>,
    /// Order that is in progress. No other order starts until its task has ended.
    order: Option<AbortHandle>,
    /// The certificate is no longer wanted, but its order has not ended yet.
    leaving: bool,
    metrics: AcmeMetrics,
}

impl Book {
    /// Creates a manager without certificates.
    pub(super) fn new(orders: Orders, metrics: Arc<Metrics>, pace: Timing) -> Self {
        Book {
            entries: BTreeMap::new(),
            under_way: JoinSet::new(),
            ordered: HashMap::new(),
            orders: Arc::new(orders),
            metrics,
            pace,
        }
    }

    /// Applies a new plan: adds the wanted certificates, and removes the others.
    pub(super) fn follow(&mut self, plan: &AcmePlan) {
        let wanted =
            plan.server.iter().flat_map(|server| plan.wanted.iter().map(move |wanted| (server, wanted)));
        let wanted: BTreeMap<&str, _> = wanted.map(|of| (&*of.1.domain, of)).collect();
        for entry in self.entries.values_mut().filter(|entry| !wanted.contains_key(&*entry.wanted.domain)) {
            entry.leaving = true;
            entry.abort();
        }
        let metrics = &self.metrics;
        self.entries.retain(|_, entry| {
            let stays = !entry.leaving || entry.order.is_some();
            if !stays {
                metrics.acme.forget(&entry.wanted.vhost);
            }
            stays
        });
        for (domain, (server, wanted)) in wanted {
            match self.entries.get_mut(domain) {
                Some(entry) if entry.wanted == *wanted && entry.server == *server => entry.leaving = false,
                Some(entry) => {
                    entry.abort();
                    if entry.wanted.vhost != wanted.vhost {
                        metrics.acme.forget(&entry.wanted.vhost);
                    }
                    *entry = CertificateEntry {
                        order: entry.order.take(),
                        ..CertificateEntry::new(server, wanted, metrics)
                    };
                }
                None => {
                    self.entries.insert(domain.to_owned(), CertificateEntry::new(server, wanted, metrics));
                }
            }
        }
    }

    /// Starts orders for due certificates, up to the limit on simultaneous orders.
    pub(super) fn order_what_is_due(&mut self, now: SystemTime) {
        let is_due =
            |entry: &&mut CertificateEntry| entry.order.is_none() && !entry.leaving && entry.due <= now;
        let mut due: Vec<&mut CertificateEntry> = self.entries.values_mut().filter(is_due).collect();
        // The entry with the longest wait comes first: repeated failures of one certificate must not delay
        // the others.
        due.sort_by_key(|entry| entry.due);
        let places = self.pace.at_once.saturating_sub(self.under_way.len());
        for entry in due.into_iter().take(places) {
            let (server, wanted) = (entry.server.clone(), entry.wanted.clone());
            info!(domain = wanted.domain, server = server.directory_url, "ordering a certificate");
            let orders = self.orders.clone();
            let order = self.under_way.spawn(async move { orders.fulfil(&server, &wanted).await });
            self.ordered.insert(order.id(), (entry.server.clone(), entry.wanted.clone()));
            entry.order = Some(order);
        }
    }

    /// Returns the time until the next certificate is due, at most [`LONGEST_NAP`].
    pub(super) fn nap(&self, now: SystemTime) -> Duration {
        if self.under_way.len() >= self.pace.at_once {
            return LONGEST_NAP;
        }
        let idle = self.entries.values().filter(|entry| entry.order.is_none());
        let soonest = idle.map(|entry| entry.due.duration_since(now).unwrap_or_default()).min();
        soonest.unwrap_or(LONGEST_NAP).min(LONGEST_NAP)
    }

    /// Waits for the end of an order. Returns `None` if no order is in progress.
    pub(super) async fn next_outcome(&mut self) -> Option<Ordered> {
        self.under_way.join_next_with_id().await
    }

    /// Records the outcome of an order. Returns the domain if its file was replaced.
    pub(super) fn take_in(&mut self, ordered: Ordered, now: SystemTime) -> Option<String> {
        let (id, outcome) = match ordered {
            Ok((id, outcome)) => (id, outcome.map_err(|error| (error.to_string(), error.asked_to_wait))),
            Err(error) if error.is_cancelled() => {
                self.ended(error.id());
                return None;
            }
            Err(error) => (error.id(), Err((format!("a defect in the gateway: {error}"), None))),
        };
        let pace = self.pace;
        let (domain, entry) = self.ended(id)?;
        match outcome {
            Ok(fulfilled) => {
                let certificate = match fulfilled {
                    Fulfilled::Issued(certificate) => {
                        entry.metrics.issued.inc();
                        certificate
                    }
                    Fulfilled::Found(certificate) => certificate,
                };
                entry.succeeded(certificate, now, &pace);
                Some(domain)
            }
            Err((reason, asked)) => {
                entry.metrics.failed.inc();
                entry.failed(reason, now, pace.after_failure(entry.failures + 1, fastrand::f64(), asked));
                None
            }
        }
    }

    /// Removes a task that has ended. Returns the task's entry, if it still wants this certificate.
    fn ended(&mut self, id: Id) -> Option<(String, &mut CertificateEntry)> {
        let (server, wanted) = self.ordered.remove(&id)?;
        let entry = self.entries.get_mut(&wanted.domain)?;
        entry.order = None;
        if entry.leaving {
            self.metrics.acme.forget(&entry.wanted.vhost);
            self.entries.remove(&wanted.domain);
            return None;
        }
        if entry.server != server || entry.wanted != wanted {
            // The order was for an older plan. It may have written a file all the same, so the cache is read
            // again.
            *entry = CertificateEntry::new(&entry.server, &entry.wanted, &self.metrics);
            return None;
        }
        self.entries.get_mut(&wanted.domain).map(|entry| (wanted.domain, entry))
    }

    pub(super) fn statuses(&self) -> impl Iterator<Item = AcmeStatus> {
        self.entries.values().filter(|entry| !entry.leaving).map(CertificateEntry::status)
    }
}

impl CertificateEntry {
    fn new(server: &Arc<Server>, wanted: &Wanted, metrics: &Metrics) -> Self {
        let certificate = Cache::new(&server.cache_dir).certificate(&wanted.domain);
        let metrics = metrics.acme.of(&wanted.vhost);
        let covers = certificate.as_ref().filter(|certificate| certificate.names.is_superset(&wanted.names));
        CertificateEntry {
            due: covers.map_or(SystemTime::UNIX_EPOCH, renewal),
            wanted: wanted.clone(),
            server: server.clone(),
            certificate,
            failures: 0,
            last_error: None,
            order: None,
            leaving: false,
            metrics,
        }
    }

    /// Aborts an order that is no longer needed. The entry stays until the order's task has ended.
    fn abort(&self) {
        if let Some(order) = &self.order {
            order.abort();
        }
    }

    fn succeeded(&mut self, certificate: Certificate, now: SystemTime, pace: &Timing) {
        self.due = renewal(&certificate);
        self.certificate = Some(certificate);
        if self.due <= now {
            // Most likely the clock of this machine is wrong. Another certificate would not be better.
            let wait = pace.after_failure(self.failures + 1, fastrand::f64(), None);
            return self.failed(
                "the new certificate would have to be renewed at once: check the clock of this machine",
                now,
                wait,
            );
        }
        self.failures = 0;
        self.last_error = None;
        let names = self.wanted.names.len();
        info!(domain = self.wanted.domain, names, "the certificate is ready");
    }

    fn failed(&mut self, reason: impl Into<String>, now: SystemTime, wait: Duration) {
        let reason = reason.into();
        self.failures = self.failures.saturating_add(1);
        self.due = now.checked_add(wait).unwrap_or(now);
        let serves = self.certificate.as_ref().is_some_and(|certificate| certificate.not_after > now);
        warn!(
            domain = self.wanted.domain,
            failures = self.failures,
            again_in_secs = wait.as_secs(),
            "no certificate was issued, {}: {reason}",
            if serves { "the previous one is still served" } else { "and there is none to serve" }
        );
        self.last_error = Some(reason);
    }

    fn status(&self) -> AcmeStatus {
        let state = match self {
            CertificateEntry { order: Some(_), .. } => AcmeState::Ordering,
            CertificateEntry { failures: 1.., .. } => AcmeState::Failing,
            CertificateEntry { certificate: Some(_), .. } => AcmeState::Valid,
            _ => AcmeState::Waiting,
        };
        AcmeStatus {
            domain: self.wanted.domain.clone(),
            names: self.wanted.names.iter().cloned().collect(),
            state,
            challenge: self.server.challenge,
            not_after: self.certificate.as_ref().map(|certificate| certificate.not_after),
            next_attempt: self.order.is_none().then_some(self.due),
            failures: self.failures,
            last_error: self.last_error.clone(),
        }
    }
}
