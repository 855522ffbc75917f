//! One backend, as long as the process knows it: what outlives a change of the configuration is here.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::breaker::{Breaker, BreakerRules, Change, CircuitState, Outcome, Why};
use super::clock;
use super::kept::KeptConnections;
use crate::telemetry::BackendMetrics;

/// Time between two warnings of logins that hold for a connection.
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// Where a backend is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// Over TCP.
    Inet(SocketAddr),
    /// At a socket of this machine.
    Unix(PathBuf),
    /// Wherever this name leads, which nobody has looked up: nothing can be sent there.
    Unresolved(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Inet(address) => address.fmt(f),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Unresolved(name) => f.write_str(name),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Endpoint::Inet(address)
    }
}

/// A backend and all that is known about it now.
pub struct BackendState {
    /// Its name in logs, metrics and answers: its id in the configuration, and where that leads to several
    /// addresses, which one this is.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The host name by which it was found, if it was.
    pub host: Option<String>,
    /// What a client is told of it, to find back to it: nothing that says anything.
    pub mark: String,
    /// Its counters.
    pub metrics: BackendMetrics,
    /// How many kinds of probes it fails.
    failing: AtomicU32,
    drained: AtomicBool,
    inflight: AtomicU32,
    kept: KeptConnections,
    /// Whether the backend spoke HTTP/1.1 the last time, where it has the choice.
    speaks_http1: AtomicBool,
    breaker: Breaker,
    slow_start: SlowStart,
    refused_certificates: clock::Every,
    connection_logins: clock::Every,
}

impl BackendState {
    /// A backend that counts as healthy until probes say otherwise.
    pub fn new(name: String, endpoint: Endpoint, host: Option<String>, metrics: BackendMetrics) -> Self {
        let hash = openssl::sha::sha256(format!("{name} {endpoint}").as_bytes());
        BackendState {
            mark: hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
            name,
            endpoint,
            host,
            metrics,
            failing: AtomicU32::new(0),
            drained: AtomicBool::new(false),
            inflight: AtomicU32::new(0),
            kept: KeptConnections::default(),
            speaks_http1: AtomicBool::new(false),
            breaker: Breaker::new(),
            slow_start: SlowStart::default(),
            refused_certificates: clock::Every::default(),
            connection_logins: clock::Every::default(),
        }
    }

    /// What it is called in a request that names no host.
    pub fn authority(&self) -> String {
        match (&self.endpoint, &self.host) {
            (Endpoint::Inet(address), Some(host)) => format!("{host}:{}", address.port()),
            (Endpoint::Inet(address), None) => address.to_string(),
            (Endpoint::Unix(_) | Endpoint::Unresolved(_), _) => "localhost".to_owned(),
        }
    }

    /// Whether requests may be sent to it.
    pub fn is_usable(&self) -> bool {
        self.is_healthy() && !self.is_drained() && self.breaker.lets_through(clock::now)
    }

    /// What the probes found last.
    pub fn is_healthy(&self) -> bool {
        // A request that sees the old state for a moment is retried elsewhere: no ordering is needed.
        self.failing.load(Ordering::Relaxed) == 0
    }

    /// Whether it gets no new requests, because somebody wants it so.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Whether it gets no new requests from now on.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Requests that it is serving.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Ordering::Relaxed)
    }

    /// The connections to it that are kept for later requests.
    pub fn kept(&self) -> &KeptConnections {
        &self.kept
    }

    /// Limit to how often the log says why the backend's certificate is refused.
    pub(super) fn refused_certificates(&self) -> &clock::Every {
        &self.refused_certificates
    }

    /// Says in the log, at most once an hour, that clients log in to the backend in a way that holds for a connection.
    pub fn warn_of_connection_login(&self) {
        if self.connection_logins.is_due(clock::now(), WARN_EVERY) {
            warn!(
                backend = self.name,
                "clients log in by NTLM or Negotiate, which holds for a connection: such a client gets connections of its \
                 own; over HTTP/2 the login cannot work, and with several backends it needs `balancing.sticky_cookie`"
            );
        }
    }

    /// Returns true where the backend spoke HTTP/1.1 the last time that it had the choice.
    pub fn speaks_http1(&self) -> bool {
        self.speaks_http1.load(Ordering::Relaxed)
    }

    /// Notes which version the backend has chosen.
    pub fn set_speaks_http1(&self, speaks_http1: bool) {
        self.speaks_http1.store(speaks_http1, Ordering::Relaxed);
    }

    /// Its circuit.
    pub fn circuit(&self) -> CircuitState {
        self.breaker.state(clock::now)
    }

    /// How long its circuit stays open.
    pub fn circuit_open_for(&self) -> Option<Duration> {
        self.breaker.open_for(clock::now()).map(Duration::from_millis)
    }

    /// A kind of probe has begun to fail, or to pass again; whether the backend is another one by that.
    pub(super) fn set_failing(&self, failing: bool, slow_start: Duration) -> bool {
        let before = if failing {
            self.failing.fetch_add(1, Ordering::Relaxed)
        } else {
            self.failing.fetch_sub(1, Ordering::Relaxed)
        };
        if before == 1 && !failing {
            self.breaker.try_now(clock::now());
            self.slow_start.begin(slow_start);
        }
        self.show_health();
        before == if failing { 0 } else { 1 }
    }

    /// Shows its state in the metrics: of another backend with that name it may be another one.
    pub fn show_health(&self) {
        self.metrics.health.set(self.is_healthy().into());
        self.show_circuit();
    }

    fn show_circuit(&self) {
        self.metrics.circuit.set(match self.circuit() {
            CircuitState::Closed => 0,
            CircuitState::HalfOpen => 1,
            CircuitState::Open => 2,
        });
    }

    /// Whether it has not been back for long, and this request, one of many with numbers spread over all of
    /// `u32`, is to go elsewhere so that its share grows slowly.
    pub(super) fn is_warming(&self, draw: u32) -> bool {
        self.slow_start.turns_away(draw)
    }

    fn record(&self, outcome: Outcome, tried: bool, rules: &BreakerRules) {
        let Some(change) = self.breaker.record(outcome, tried, rules, clock::now()) else { return };
        self.show_circuit();
        let (backend, address) = (&self.name, &self.endpoint);
        match change {
            Change::Closed => {
                info!(backend, %address, "circuit closed: the backend answers again");
            }
            Change::Opened { open_for, why } => {
                self.metrics.circuit_opened.inc();
                let secs = open_for.as_secs();
                match why {
                    Why::InARow(failures) => {
                        warn!(backend, %address, secs, "circuit opened: {failures} failures in a row");
                    }
                    Why::Share(failures, requests) => {
                        warn!(backend, %address, secs, "circuit opened: {failures} of {requests} requests failed");
                    }
                    Why::TriedInVain => {
                        warn!(backend, %address, secs, "circuit opened again: the request that tried has failed");
                    }
                }
            }
        }
    }
}

/// The time after a recovery over which a backend's share grows.
#[derive(Default)]
struct SlowStart {
    /// When it began, in milliseconds; 0: it is over.
    from: AtomicU64,
    /// How long it lasts.
    millis: AtomicU64,
}

impl SlowStart {
    fn begin(&self, lasts: Duration) {
        let millis = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
        self.from.store(if millis == 0 { 0 } else { clock::now() }, Ordering::Relaxed);
    }

    fn turns_away(&self, draw: u32) -> bool {
        let from = self.from.load(Ordering::Relaxed);
        if from == 0 {
            return false;
        }
        let (passed, lasts) = (clock::now().saturating_sub(from), self.millis.load(Ordering::Relaxed).max(1));
        if passed >= lasts {
            self.from.store(0, Ordering::Relaxed);
            return false;
        }
        // A tenth at once, or it would never be known how it is.
        let share = (passed as f64 / lasts as f64).max(0.1);
        f64::from(draw) >= share * f64::from(u32::MAX)
    }
}

/// What an attempt heeds of a backend's circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitMode {
    /// It goes elsewhere while that is open, and may be the one that tries.
    Circuit,
    /// It may be the one that tries, and goes there in any case: too few backends are left.
    Panic,
    /// Nothing, and it tells nothing either.
    Nothing,
}

/// One attempt to have a backend answer a request. It counts as in flight there until it is dropped, however the
/// request ends.
pub struct Attempt {
    backend: Arc<BackendState>,
    /// Whether it is the one that tries behind a circuit that was open.
    tries: bool,
    /// Whether it has been told how it went.
    recorded: bool,
    /// Whether the backend works for it no more.
    is_over: bool,
}

impl Attempt {
    /// Begins an attempt, where fewer than `limit` are in flight and the circuit lets it through, as far as that
    /// is heeded.
    pub fn begin(backend: Arc<BackendState>, limit: u32, heed: CircuitMode) -> Option<Self> {
        let one_more = |inflight: u32| (inflight < limit).then_some(inflight + 1);
        backend.inflight.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).ok()?;
        let entered = match heed {
            CircuitMode::Circuit => backend.breaker.enter(clock::now),
            CircuitMode::Panic => backend.breaker.enter(clock::now).or(Some(false)),
            CircuitMode::Nothing => Some(false),
        };
        let Some(tries) = entered else {
            backend.inflight.fetch_sub(1, Ordering::AcqRel);
            return None;
        };
        if tries {
            backend.show_circuit();
            debug!(backend = backend.name, address = %backend.endpoint, "circuit half-open: one request tries");
        }
        backend.metrics.requests.inc();
        backend.metrics.requests_active.inc();
        Some(Attempt { backend, tries, recorded: false, is_over: false })
    }

    /// Which backend is asked.
    pub fn backend(&self) -> &Arc<BackendState> {
        &self.backend
    }

    /// Returns true where this attempt decides whether an open circuit closes.
    pub fn is_trial(&self) -> bool {
        self.tries
    }

    /// Ends the attempt without an outcome: it says nothing about the backend.
    pub fn abandon(&mut self) {
        self.recorded = true;
    }

    /// Tells how it went. Only the first time counts.
    pub fn record(&mut self, outcome: Outcome, rules: &BreakerRules) {
        if !std::mem::replace(&mut self.recorded, true) {
            self.backend.record(outcome, std::mem::take(&mut self.tries), rules);
        }
    }

    /// The head of a response is there. Where that is what was tried for, nothing more need be waited for.
    pub fn answered(&mut self, outcome: Outcome, rules: &BreakerRules) {
        if self.tries {
            self.record(outcome, rules);
        }
    }

    /// The backend works for it no more, however long the request goes on. Only the first time counts.
    pub fn over(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.backend.inflight.fetch_sub(1, Ordering::AcqRel);
            self.backend.metrics.requests_active.dec();
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.over();
        if self.tries {
            self.backend.breaker.leave();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::CircuitBreaker;
    use crate::telemetry::Metrics;

    /// A backend to balance over, never spoken to.
    pub(in crate::upstream) fn backend(metrics: &Metrics, name: &str) -> Arc<BackendState> {
        let port = name.bytes().fold(1, |hash: u16, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let endpoint = SocketAddr::from(([127, 0, 0, 1], port)).into();
        Arc::new(BackendState::new(name.to_owned(), endpoint, None, metrics.backends.handles(name)))
    }

    pub(in crate::upstream) fn begin(backend: &Arc<BackendState>) -> Attempt {
        Attempt::begin(backend.clone(), u32::MAX, CircuitMode::Circuit).unwrap()
    }

    /// Has its circuit open.
    pub(in crate::upstream) fn trip(backend: &Arc<BackendState>) {
        let rules = BreakerRules::from(&CircuitBreaker::default());
        (0..5).for_each(|_| begin(backend).record(Outcome::Failure, &rules));
    }

    #[test]
    fn an_attempt_is_in_flight_until_it_is_dropped() {
        let metrics = Metrics::new().unwrap();
        let backend = backend(&metrics, "a");
        let first = begin(&backend);
        let second = Attempt::begin(backend.clone(), 2, CircuitMode::Circuit).unwrap();
        assert!(Attempt::begin(backend.clone(), 2, CircuitMode::Circuit).is_none(), "no more than the limit");
        assert_eq!((backend.inflight(), backend.metrics.requests_active.get()), (2, 2));
        drop(first);
        assert_eq!((backend.inflight(), backend.metrics.requests_active.get()), (1, 1));
        drop(second);
        assert_eq!((backend.inflight(), backend.metrics.requests_active.get()), (0, 0));
        assert_eq!(backend.metrics.requests.get(), 2, "what was turned away is no request");
    }

    #[test]
    fn an_open_circuit_makes_a_backend_unusable_and_shows() {
        let metrics = Metrics::new().unwrap();
        let backend = backend(&metrics, "a");
        trip(&backend);
        assert!(!backend.is_usable() && backend.is_healthy());
        assert_eq!((backend.circuit(), backend.metrics.circuit.get()), (CircuitState::Open, 2));
        assert!(Attempt::begin(backend.clone(), u32::MAX, CircuitMode::Circuit).is_none());
        assert!(
            Attempt::begin(backend.clone(), u32::MAX, CircuitMode::Nothing).is_some(),
            "unless nobody heeds it"
        );
        let left = backend.circuit_open_for().unwrap();
        assert!(left <= Duration::from_secs(10) && left > Duration::from_secs(8), "{left:?}");
    }

    #[test]
    fn every_kind_of_probe_must_pass() {
        let metrics = Metrics::new().unwrap();
        let backend = backend(&metrics, "a");
        backend.set_failing(true, Duration::ZERO);
        backend.set_failing(true, Duration::ZERO);
        backend.set_failing(false, Duration::ZERO);
        assert!(!backend.is_healthy() && backend.metrics.health.get() == 0);
        backend.set_failing(false, Duration::from_secs(3600));
        assert!(backend.is_healthy() && backend.metrics.health.get() == 1);
        let draws = (0..1000).map(|i| i * (u32::MAX / 1000));
        let turned_away = draws.filter(|draw| backend.is_warming(*draw)).count();
        assert!((890..=910).contains(&turned_away), "a tenth comes through at first: {turned_away}");
    }
}
