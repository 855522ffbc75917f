//! State of one backend: health, circuit, requests in flight, idle connections. The process keeps this state as long
//! as it knows the backend, so the state outlives a change of the configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::breaker::{Breaker, BreakerRules, Change, CircuitState, Outcome, Why};
use super::idle::IdleConnections;
use crate::telemetry::BackendMetrics;
use crate::util::clock;

/// Minimum time between two warnings that clients log in to one backend by NTLM or Negotiate.
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// Address at which the gateway connects to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// IP address and port of a TCP connection.
    Inet(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
    /// Host name that has not been looked up. No request can be sent there.
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

/// A backend and its current state.
pub struct BackendState {
    /// Name of the backend in logs, metrics and API responses: its id in the configuration. If the id resolves to
    /// several addresses, the name also tells which address this backend has.
    pub name: String,
    /// Address at which the backend listens.
    pub endpoint: Endpoint,
    /// Host name that was looked up; `None` if the configuration gives an IP address or a Unix socket.
    pub host: Option<String>,
    /// Sticky id: a value that the client receives, and sends back to get the same backend again. The value is a hash,
    /// so it tells the client nothing about the backend.
    pub sticky_id: String,
    /// Metrics of the backend.
    pub metrics: BackendMetrics,
    /// Number of kinds of probes that the backend fails.
    failing: AtomicU32,
    drained: AtomicBool,
    inflight: AtomicU32,
    idle_connections: IdleConnections,
    /// True if the backend chose HTTP/1.1 the last time that it had the choice; false if it never had the choice.
    speaks_http1: AtomicBool,
    breaker: Breaker,
    slow_start: SlowStart,
    refused_certificates: clock::Every,
    connection_logins: clock::Every,
}

impl BackendState {
    /// Returns a backend that counts as healthy until probes fail.
    pub fn new(name: String, endpoint: Endpoint, host: Option<String>, metrics: BackendMetrics) -> Self {
        let hash = openssl::sha::sha256(format!("{name} {endpoint}").as_bytes());
        BackendState {
            sticky_id: hex::encode(&hash[..8]),
            name,
            endpoint,
            host,
            metrics,
            failing: AtomicU32::new(0),
            drained: AtomicBool::new(false),
            inflight: AtomicU32::new(0),
            idle_connections: IdleConnections::default(),
            speaks_http1: AtomicBool::new(false),
            breaker: Breaker::new(),
            slow_start: SlowStart::default(),
            refused_certificates: clock::Every::default(),
            connection_logins: clock::Every::default(),
        }
    }

    /// Returns the host name or address of the backend, for a request that names no other host.
    pub fn authority(&self) -> String {
        match (&self.endpoint, &self.host) {
            (Endpoint::Inet(address), Some(host)) => format!("{host}:{}", address.port()),
            (Endpoint::Inet(address), None) => address.to_string(),
            (Endpoint::Unix(_) | Endpoint::Unresolved(_), _) => "localhost".to_owned(),
        }
    }

    /// Returns true if requests may be sent to the backend.
    pub fn is_usable(&self) -> bool {
        self.is_healthy() && !self.is_drained() && self.breaker.lets_through(clock::now)
    }

    /// Returns true if the backend passes every kind of probe.
    pub fn is_healthy(&self) -> bool {
        // No ordering is needed, because a request that sees an outdated state is retried on another backend.
        self.failing.load(Ordering::Relaxed) == 0
    }

    /// Returns true if the backend is drained, and therefore gets no new requests.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Starts or ends the drain of the backend: a drained backend gets no new requests.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Returns the number of requests that the backend is serving.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Ordering::Relaxed)
    }

    /// Returns the state of the idle connections to the backend.
    pub fn idle_connections(&self) -> &IdleConnections {
        &self.idle_connections
    }

    /// Returns the rate limit for log messages that say why the backend's certificate is refused.
    pub(super) fn refused_certificates(&self) -> &clock::Every {
        &self.refused_certificates
    }

    /// Logs a warning, at most once an hour, that clients log in to the backend by NTLM or Negotiate.
    pub fn warn_of_connection_login(&self) {
        if self.connection_logins.is_due(clock::now(), WARN_EVERY) {
            warn!(
                backend = self.name,
                "clients log in by NTLM or Negotiate, which holds for a connection: such a client gets connections of its \
                 own; over HTTP/2 the login cannot work, and with several backends it needs `balancing.sticky_cookie`"
            );
        }
    }

    /// Returns true if the backend chose HTTP/1.1 the last time that it had the choice.
    pub fn speaks_http1(&self) -> bool {
        self.speaks_http1.load(Ordering::Relaxed)
    }

    /// Notes the version of HTTP that the backend has chosen.
    pub fn set_speaks_http1(&self, speaks_http1: bool) {
        self.speaks_http1.store(speaks_http1, Ordering::Relaxed);
    }

    /// Returns the state of the backend's circuit.
    pub fn circuit(&self) -> CircuitState {
        self.breaker.state(clock::now)
    }

    /// Returns how long the circuit stays open, or `None` if it is not open.
    pub fn circuit_open_for(&self) -> Option<Duration> {
        self.breaker.open_for(clock::now()).map(Duration::from_millis)
    }

    /// Notes that one kind of probe has begun to fail, or has begun to pass again. Returns true if this changes the
    /// health of the backend. When the backend becomes healthy, the waiting time of an open circuit ends, and a slow
    /// start of length `slow_start` begins.
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

    /// Writes health and circuit to the metrics. An earlier backend of the same name may have left other values.
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

    /// Returns true if the backend is in its slow start and this request must be sent to another backend, so that the
    /// backend's share grows slowly. `draw` is a random number of the request, from all of `u32`.
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
                        warn!(backend, %address, secs, "circuit opened again: the test request has failed");
                    }
                }
            }
        }
    }
}

/// Slow start: the time after a recovery in which a backend's share of the requests grows.
#[derive(Default)]
struct SlowStart {
    /// Time at which the slow start began, in milliseconds; 0 if there is no slow start.
    from: AtomicU64,
    /// Length of the slow start in milliseconds.
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
        // The share begins at a tenth, because without requests the state of the backend would never be known.
        let share = (passed as f64 / lasts as f64).max(0.1);
        f64::from(draw) >= share * f64::from(u32::MAX)
    }
}

/// Influence of a backend's circuit on an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitMode {
    /// An open circuit refuses the attempt. After the waiting time, the attempt may become the trial that decides
    /// whether the circuit closes.
    Circuit,
    /// The attempt begins in any case, because too few backends are usable (panic). It may become the trial.
    Panic,
    /// The attempt ignores the circuit, and its outcome does not change the circuit.
    Nothing,
}

/// Attempt to have a backend answer a request. The attempt counts as in flight until [`Attempt::over`] is called or
/// the attempt is dropped.
pub struct Attempt {
    backend: Arc<BackendState>,
    /// True if this attempt is the trial of an open circuit, and has no outcome yet.
    tries: bool,
    /// True once the outcome of the attempt is recorded, or the attempt is abandoned.
    recorded: bool,
    /// True once the backend no longer works for this attempt.
    is_over: bool,
}

impl Attempt {
    /// Begins an attempt. Returns `None` if `limit` requests are already in flight on `backend`, or if the circuit
    /// refuses the attempt. `heed` sets the influence of the circuit.
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
            debug!(
                backend = backend.name,
                address = %backend.endpoint,
                "circuit half-open: one request tests the backend"
            );
        }
        backend.metrics.requests.inc();
        backend.metrics.requests_active.inc();
        Some(Attempt { backend, tries, recorded: false, is_over: false })
    }

    /// Returns the backend of the attempt.
    pub fn backend(&self) -> &Arc<BackendState> {
        &self.backend
    }

    /// Returns true if this attempt is the trial of an open circuit, and has no outcome yet.
    pub fn is_trial(&self) -> bool {
        self.tries
    }

    /// Ends the attempt without an outcome, because the attempt tells nothing about the backend.
    pub fn abandon(&mut self) {
        self.recorded = true;
    }

    /// Records the outcome of the attempt. Only the first call counts.
    pub fn record(&mut self, outcome: Outcome, rules: &BreakerRules) {
        if !std::mem::replace(&mut self.recorded, true) {
            self.backend.record(outcome, std::mem::take(&mut self.tries), rules);
        }
    }

    /// Notes that the head of a response has arrived. This decides a trial, which need not wait for the body.
    pub fn answered(&mut self, outcome: Outcome, rules: &BreakerRules) {
        if self.tries {
            self.record(outcome, rules);
        }
    }

    /// Notes that the backend no longer works for the attempt, which is then no longer in flight. The request may
    /// continue. Only the first call counts.
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

    /// Returns a backend for tests of load balancing. No test connects to it.
    pub(in crate::upstream) fn backend(metrics: &Metrics, name: &str) -> Arc<BackendState> {
        let port = name.bytes().fold(1, |hash: u16, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let endpoint = SocketAddr::from(([127, 0, 0, 1], port)).into();
        Arc::new(BackendState::new(name.to_owned(), endpoint, None, metrics.backends.handles(name)))
    }

    pub(in crate::upstream) fn begin(backend: &Arc<BackendState>) -> Attempt {
        Attempt::begin(backend.clone(), u32::MAX, CircuitMode::Circuit).unwrap()
    }

    /// Opens the circuit of `backend`.
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
    fn open_circuit_makes_backend_unusable_and_sets_metric() {
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
    fn backend_is_healthy_when_every_probe_kind_passes() {
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
