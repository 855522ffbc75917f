//! Background service that connects and reconnects stores, so that no request waits for a connection attempt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::connect::NoConnection;
use super::{Ask, NoAnswer, Store};
use crate::util::backoff::Backoff;

/// Timeout of a connection attempt, including TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pauses after a failed attempt or a short connection.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(2) };
/// Time after which a connection counts as good. After a good connection, the next attempt follows at once.
const GOOD: Duration = Duration::from_secs(5);

/// Service that keeps the stores of the configuration connected, until the process ends.
pub struct StoreKeeper {
    stores: watch::Receiver<Vec<Arc<Store>>>,
}

impl StoreKeeper {
    /// Creates a service for the current value of `stores`.
    pub fn new(stores: watch::Receiver<Vec<Arc<Store>>>) -> Self {
        StoreKeeper { stores }
    }
}

#[async_trait]
impl BackgroundService for StoreKeeper {
    /// Continues while the server shuts down, because requests in flight are still counted.
    async fn start(&self, _shutdown: ShutdownWatch) {
        let mut stores = self.stores.clone();
        let mut kept = HashMap::new();
        loop {
            let now = stores.borrow_and_update().clone();
            kept = follow(kept, now);
            if stores.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Tasks that keep stores connected, by the address of the store in memory.
type Tasks = HashMap<usize, AbortOnDropHandle<()>>;

/// Starts a task for each new store and ends the tasks of removed stores. Every other store keeps its task.
fn follow(mut kept: Tasks, stores: Vec<Arc<Store>>) -> Tasks {
    let task = |store: Arc<Store>| AbortOnDropHandle::new(tokio::spawn(keep(store)));
    let known = |store: Arc<Store>| {
        let place = Arc::as_ptr(&store).addr();
        (place, kept.remove(&place).unwrap_or_else(|| task(store)))
    };
    stores.into_iter().map(known).collect()
}

/// Reason why a store could not be connected.
#[derive(Debug, thiserror::Error)]
enum Away {
    #[error("{0}")]
    NoConnection(#[from] NoConnection),
    #[error("no connection within {CONNECT_TIMEOUT:?}")]
    TooLate,
    #[error("{0}")]
    NoAnswer(#[from] NoAnswer),
}

impl Away {
    /// Returns true if the store cannot be reached at all; false if it responds with an error.
    fn is_silence(&self) -> bool {
        match self {
            Away::TooLate | Away::NoConnection(NoConnection::System(_)) => true,
            Away::NoConnection(NoConnection::Redis(error)) => error.is_io_error(),
            _ => false,
        }
    }
}

async fn keep(store: Arc<Store>) {
    store.metrics.up.set(0);
    let (mut told, mut was_lost) = (String::new(), false);
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        match connected(&store).await {
            Ok(()) => (told, was_lost) = (String::new(), true),
            Err(away) => {
                // The same reason is logged once. After the loss of a connection, which is logged too, an
                // unreachable store is not logged again. A new reason, for example a password that is no longer
                // valid, is logged.
                let reason = away.to_string();
                let is_known = told == reason || (was_lost && away.is_silence());
                tell(&store, &reason, is_known);
                told = reason;
            }
        }
        if begun.elapsed() >= GOOD {
            failures = 0;
            continue;
        }
        failures += 1;
        // The random factor keeps gateways that lost the store together from reconnecting at the same time.
        sleep(BACKOFF.with_jitter(failures, 0.5)).await;
    }
}

fn tell(store: &Store, reason: &str, is_known: bool) {
    let store = &store.settings.redis;
    if is_known {
        debug!(%store, reason, "the store of rate limits is still not available");
    } else {
        warn!(
            %store,
            reason,
            "the store of rate limits cannot be used; this gateway counts by itself until it can"
        );
    }
}

/// Connects the store. Returns `Ok` when the connection is lost, and an error if the attempt fails.
async fn connected(store: &Arc<Store>) -> Result<(), Away> {
    let connecting = timeout(CONNECT_TIMEOUT, store.settings.connect());
    let (connection, driver) = connecting.await.map_err(|_| Away::TooLate)??;
    // Dropping the handle ends the driver, and so the requests that still wait on this connection.
    let mut driver = AbortOnDropHandle::new(driver);
    let link = Arc::new(connection);
    // The probe counts like a request. It fails if Redis accepts no writes (a replica, or no free memory), or
    // takes longer than a request waits.
    let probe = Ask { key: "gateway:rate:probe".to_owned(), limit: u32::MAX, window_ms: 1_000 };
    store.ask(&link, &[probe]).await?;
    store.find(link.clone());
    while store.has(&link) {
        tokio::select! {
            _ = &mut driver => store.lose(&link, "the connection was closed"),
            () = store.lost.notified() => {}
        }
    }
    Ok(())
}
