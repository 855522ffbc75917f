//! State of every certificate: its due time, its current order, and the last result. The service calls the manager to
//! start the due orders, and to record their outcomes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{info, warn};

use super::client::OrderError;
use super::orders::{Fulfilled, Orders};
use super::schedule::renewal;
use super::{AcmePlan, AcmeState, AcmeStatus, Cache, Certificate, PlannedCertificate, Server, Timing};
use crate::telemetry::{AcmeMetrics, Metrics};

/// Maximum time between two checks for due certificates. The time is limited because timers do not notice that the
/// machine was asleep or that its clock was set.
const LONGEST_NAP: Duration = Duration::from_secs(10 * 60);

/// Result of an order's task.
pub(super) type Ordered = Result<(Id, Result<Fulfilled, OrderError>), JoinError>;

/// State of all certificates.
pub(super) struct CertificateManager {
    /// Certificates by domain.
    entries: BTreeMap<String, CertificateEntry>,
    under_way: JoinSet<Result<Fulfilled, OrderError>>,
    /// Server and certificate of each order, by the id of the order's task.
    ordered: HashMap<Id, (Arc<Server>, PlannedCertificate)>,
    orders: Arc<Orders>,
    metrics: Arc<Metrics>,
    timing: Timing,
}

/// State of one certificate.
struct CertificateEntry {
    planned: PlannedCertificate,
    server: Arc<Server>,
    /// Certificate that is served now; `None` if there is none.
    certificate: Option<Certificate>,
    due: SystemTime,
    failures: u32,
    last_error: Option<String>,
    /// Order in progress; `None` if no order is. No other order starts until the order's task has ended.
    order: Option<AbortHandle>,
    /// True if the certificate is no longer wanted, but its order has not ended yet.
    is_obsolete: bool,
    metrics: AcmeMetrics,
}

impl CertificateManager {
    /// Creates a manager without certificates.
    pub(super) fn new(orders: Orders, metrics: Arc<Metrics>, timing: Timing) -> Self {
        CertificateManager {
            entries: BTreeMap::new(),
            under_way: JoinSet::new(),
            ordered: HashMap::new(),
            orders: Arc::new(orders),
            metrics,
            timing,
        }
    }

    /// Applies a new plan: adds the wanted certificates, and removes the others.
    pub(super) fn follow(&mut self, plan: &AcmePlan) {
        let planned =
            plan.server.iter().flat_map(|server| plan.planned.iter().map(move |planned| (server, planned)));
        let planned: BTreeMap<&str, _> = planned.map(|of| (&*of.1.domain, of)).collect();
        for entry in self.entries.values_mut().filter(|entry| !planned.contains_key(&*entry.planned.domain)) {
            entry.is_obsolete = true;
            entry.abort();
        }
        let metrics = &self.metrics;
        self.entries.retain(|_, entry| {
            let stays = !entry.is_obsolete || entry.order.is_some();
            if !stays {
                metrics.acme.forget(&entry.planned.vhost);
            }
            stays
        });
        for (domain, (server, planned)) in planned {
            match self.entries.get_mut(domain) {
                Some(entry) if entry.planned == *planned && entry.server == *server => {
                    entry.is_obsolete = false
                }
                Some(entry) => {
                    entry.abort();
                    if entry.planned.vhost != planned.vhost {
                        metrics.acme.forget(&entry.planned.vhost);
                    }
                    *entry = CertificateEntry {
                        order: entry.order.take(),
                        ..CertificateEntry::new(server, planned, metrics)
                    };
                }
                None => {
                    self.entries.insert(domain.to_owned(), CertificateEntry::new(server, planned, metrics));
                }
            }
        }
    }

    /// Starts orders for due certificates, up to the limit on simultaneous orders.
    pub(super) fn order_what_is_due(&mut self, now: SystemTime) {
        let is_due =
            |entry: &&mut CertificateEntry| entry.order.is_none() && !entry.is_obsolete && entry.due <= now;
        let mut due: Vec<&mut CertificateEntry> = self.entries.values_mut().filter(is_due).collect();
        // The entry that has been due for longest comes first: repeated failures of one certificate must not delay
        // the others.
        due.sort_by_key(|entry| entry.due);
        let room = self.timing.at_once.saturating_sub(self.under_way.len());
        for entry in due.into_iter().take(room) {
            let (server, planned) = (entry.server.clone(), entry.planned.clone());
            info!(domain = planned.domain, server = server.directory_url, "ordering a certificate");
            let orders = self.orders.clone();
            let order = self.under_way.spawn(async move { orders.fulfil(&server, &planned).await });
            self.ordered.insert(order.id(), (entry.server.clone(), entry.planned.clone()));
            entry.order = Some(order);
        }
    }

    /// Returns the time until the next certificate is due, at most [`LONGEST_NAP`].
    pub(super) fn nap(&self, now: SystemTime) -> Duration {
        if self.under_way.len() >= self.timing.at_once {
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

    /// Records the outcome of an order. Returns the domain of the certificate if its file was replaced.
    pub(super) fn take_in(&mut self, ordered: Ordered, now: SystemTime) -> Option<String> {
        let (id, outcome) = match ordered {
            Ok((id, outcome)) => (id, outcome.map_err(|error| (error.to_string(), error.asked_to_wait))),
            Err(error) if error.is_cancelled() => {
                self.ended(error.id());
                return None;
            }
            Err(error) => (error.id(), Err((format!("a defect in the gateway: {error}"), None))),
        };
        let timing = self.timing;
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
                entry.succeeded(certificate, now, &timing);
                Some(domain)
            }
            Err((reason, asked)) => {
                entry.metrics.failed.inc();
                entry.failed(reason, now, timing.after_failure(entry.failures + 1, fastrand::f64(), asked));
                None
            }
        }
    }

    /// Removes the task `id`, which has ended. Returns its domain and entry; `None` if the plan has changed.
    fn ended(&mut self, id: Id) -> Option<(String, &mut CertificateEntry)> {
        let (server, planned) = self.ordered.remove(&id)?;
        let entry = self.entries.get_mut(&planned.domain)?;
        entry.order = None;
        if entry.is_obsolete {
            self.metrics.acme.forget(&entry.planned.vhost);
            self.entries.remove(&planned.domain);
            return None;
        }
        if entry.server != server || entry.planned != planned {
            // The order was for an older plan. It may have written a file all the same, so the cache is read
            // again.
            *entry = CertificateEntry::new(&entry.server, &entry.planned, &self.metrics);
            return None;
        }
        self.entries.get_mut(&planned.domain).map(|entry| (planned.domain, entry))
    }

    pub(super) fn statuses(&self) -> impl Iterator<Item = AcmeStatus> {
        self.entries.values().filter(|entry| !entry.is_obsolete).map(CertificateEntry::status)
    }
}

impl CertificateEntry {
    fn new(server: &Arc<Server>, planned: &PlannedCertificate, metrics: &Metrics) -> Self {
        let certificate = Cache::new(&server.cache_dir).certificate(&planned.domain);
        let metrics = metrics.acme.of(&planned.vhost);
        let covers = certificate.as_ref().filter(|certificate| certificate.names.is_superset(&planned.names));
        CertificateEntry {
            due: covers.map_or(SystemTime::UNIX_EPOCH, renewal),
            planned: planned.clone(),
            server: server.clone(),
            certificate,
            failures: 0,
            last_error: None,
            order: None,
            is_obsolete: false,
            metrics,
        }
    }

    /// Aborts an order that is no longer needed. The entry stays until the order's task has ended.
    fn abort(&self) {
        if let Some(order) = &self.order {
            order.abort();
        }
    }

    fn succeeded(&mut self, certificate: Certificate, now: SystemTime, timing: &Timing) {
        self.due = renewal(&certificate);
        self.certificate = Some(certificate);
        if self.due <= now {
            // The clock of this machine is most likely wrong, so another certificate would not be better.
            let wait = timing.after_failure(self.failures + 1, fastrand::f64(), None);
            return self.failed(
                "the new certificate would have to be renewed at once: check the clock of this machine",
                now,
                wait,
            );
        }
        self.failures = 0;
        self.last_error = None;
        let names = self.planned.names.len();
        info!(domain = self.planned.domain, names, "the certificate is ready");
    }

    fn failed(&mut self, reason: impl Into<String>, now: SystemTime, wait: Duration) {
        let reason = reason.into();
        self.failures = self.failures.saturating_add(1);
        self.due = now.checked_add(wait).unwrap_or(now);
        let serves = self.certificate.as_ref().is_some_and(|certificate| certificate.not_after > now);
        warn!(
            domain = self.planned.domain,
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
            domain: self.planned.domain.clone(),
            names: self.planned.names.iter().cloned().collect(),
            state,
            challenge: self.server.challenge,
            not_after: self.certificate.as_ref().map(|certificate| certificate.not_after),
            next_attempt: self.order.is_none().then_some(self.due),
            failures: self.failures,
            last_error: self.last_error.clone(),
        }
    }
}
