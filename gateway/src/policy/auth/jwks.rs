//! Public keys of an issuer (JWKS, RFC 7517 5), fetched in the background. A fetch happens at the start, at
//! regular intervals, and when a token has an unknown `kid`. A minimum time between fetches limits how often
//! clients can cause a fetch. Fetched keys remain valid until the next successful fetch, even if the issuer
//! does not respond.

mod service;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use parking_lot::Mutex;
pub use service::KeySetService;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::jwk_set::JwkSet;
use super::keys::Key;
use crate::config::shown_url;
use crate::telemetry::KeySetMetrics;
use crate::util::backoff::Backoff;
use crate::util::http_client;
use crate::util::http_client::BodilessClient;

/// Maximum size of a set, in bytes.
const MAX_BYTES: usize = 256 * 1024;
/// First delay before a failed fetch is repeated. The delay doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Intervals and timeouts of fetching.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between two regular fetches.
    pub refresh: Duration,
    /// Minimum time between a fetch and the next fetch that a client's request causes.
    pub floor: Duration,
    /// Timeout of a fetch.
    pub limit: Duration,
    /// Maximum time that a request waits for a fetch.
    pub timeout: Duration,
}

impl Timing {
    /// Returns the default values, with a fetch every `refresh`.
    pub fn refreshing(refresh: Duration) -> Self {
        let floor = refresh.min(Duration::from_secs(30));
        Timing { refresh, floor, limit: Duration::from_secs(5), timeout: Duration::from_secs(2) }
    }
}

/// Public keys of one issuer, which a background task fetches.
pub struct KeySet {
    /// URL of the keys.
    pub url: String,
    uri: Uri,
    http: BodilessClient,
    timing: Timing,
    keys: ArcSwapOption<Arc<[Key]>>,
    /// Reasons why keys of the last fetched set are ignored. Each reason is logged once.
    passed_over: Mutex<Vec<String>>,
    state: watch::Sender<KeySetState>,
    wanted: Notify,
    metrics: KeySetMetrics,
}

/// State of the fetches of a key set.
#[derive(Clone, Copy, Debug, Default)]
struct KeySetState {
    is_fetching: bool,
    /// End of the last fetch, successful or not; `None` before the end of the first fetch.
    ended: Option<Instant>,
    /// True if the last fetch was successful: a key that is still missing then does not exist.
    is_current: bool,
}

impl KeySet {
    /// Creates the key set at `url`, without any keys yet.
    pub fn new(url: &str, uri: Uri, http: BodilessClient, timing: Timing, metrics: KeySetMetrics) -> Self {
        KeySet {
            url: url.to_owned(),
            uri,
            http,
            timing,
            keys: ArcSwapOption::empty(),
            passed_over: Mutex::default(),
            state: watch::Sender::new(KeySetState { is_fetching: true, ..KeySetState::default() }),
            wanted: Notify::new(),
            metrics,
        }
    }

    /// Returns the keys. If the key `kid` is missing, fetches the keys first. Returns `None` if the gateway
    /// cannot find out whether the key exists.
    pub(super) async fn keys_for(&self, kid: Option<&str>) -> Option<Arc<[Key]>> {
        let keys = self.known();
        let has_it = |keys: &Arc<[Key]>| kid.is_none_or(|kid| keys.iter().any(|key| key.is_called(kid)));
        if keys.as_ref().is_some_and(has_it) {
            return keys;
        }
        let mut state = self.state.subscribe();
        let now = *state.borrow_and_update();
        if !now.is_fetching {
            if now.ended.is_some_and(|ended| ended.elapsed() < self.timing.floor) {
                // The last fetch is too recent: without this limit, a client could cause a fetch with each
                // request.
                return keys.filter(|_| now.is_current);
            }
            self.wanted.notify_one();
        }
        let begun = now.ended;
        let fetched = state.wait_for(|state| !state.is_fetching && state.ended != begun);
        let is_current = match timeout(self.timing.timeout, fetched).await {
            Ok(Ok(state)) => state.is_current,
            _ => false,
        };
        self.known().filter(|keys| is_current || has_it(keys))
    }

    /// Returns the keys of the last successful fetch; `None` before the first one.
    pub(super) fn known(&self) -> Option<Arc<[Key]>> {
        self.keys.load().as_ref().map(|keys| (**keys).clone())
    }

    /// Fetches the keys repeatedly, until the future is dropped.
    async fn follow(&self) {
        let backoff = Backoff { first: RETRY_FIRST, most: self.timing.floor.max(RETRY_FIRST) };
        let mut failures = 0;
        loop {
            self.state.send_modify(|state| state.is_fetching = true);
            let fetched = self.fetch().await;
            let is_current = fetched.is_ok();
            let next = match fetched {
                Ok(set) => {
                    self.take(set);
                    failures = 0;
                    self.timing.refresh
                }
                Err(reason) => {
                    self.metrics.failed.inc();
                    let left = if self.known().is_some() {
                        "the old keys stay in use"
                    } else {
                        "tokens are refused"
                    };
                    warn!(url = %shown_url(&self.url), %reason, "the keys of an issuer cannot be fetched: {left}");
                    failures += 1;
                    backoff.delay(failures)
                }
            };
            let ended = Some(Instant::now());
            self.state.send_replace(KeySetState { is_fetching: false, ended, is_current });
            tokio::select! {
                () = sleep(next) => {}
                () = self.asked_for() => {}
            }
        }
    }

    /// Waits until a request needs a key that is missing, and at least for the minimum time between fetches.
    async fn asked_for(&self) {
        let floor = sleep(self.timing.floor);
        self.wanted.notified().await;
        floor.await;
    }

    fn take(&self, JwkSet { keys, passed_over }: JwkSet) {
        self.metrics.fetched.inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.metrics.fetched_at.set(i64::try_from(now).unwrap_or(i64::MAX));
        if self.known().is_none_or(|known| known.len() != keys.len()) {
            let url = shown_url(&self.url);
            match keys.len() {
                0 => warn!(%url, "an issuer has no keys any more: all its tokens are refused"),
                keys => info!(%url, keys, "the keys of an issuer have been fetched"),
            }
        }
        self.keys.store(Some(Arc::new(keys.into())));
        let before = std::mem::replace(&mut *self.passed_over.lock(), passed_over.clone());
        for reason in passed_over.iter().filter(|reason| !before.contains(reason)) {
            warn!(
                url = %shown_url(&self.url),
                reason,
                "a key of an issuer cannot be used: the tokens that it signs are refused"
            );
        }
    }

    async fn fetch(&self) -> Result<JwkSet, String> {
        let request = Request::get(self.uri.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, "gateway")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = http_client::fetch(&self.http, request, self.timing.limit, MAX_BYTES).await?;
        if answer.status != StatusCode::OK {
            // A redirect is an error too, because the operator has not allowed keys from its target.
            return Err(format!("answered with {}", answer.status));
        }
        JwkSet::read(&answer.body)
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("url", &shown_url(&self.url)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
