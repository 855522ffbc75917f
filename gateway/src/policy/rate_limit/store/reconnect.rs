//! Connects stores, and connects them again, in a background service: no request ever waits for that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::connect::NoConnection;
use super::{Ask, NoAnswer, Store};

/// How long a connection may take to be there, with TLS and the proof of who the gateway is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The first pause after an attempt that came to nothing; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// But never longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that has held for so long was a good one: the next attempt is made at once.
const GOOD: Duration = Duration::from_secs(5);

/// Keeps the stores connected that a configuration names, to the end of the process.
pub struct StoreKeeper {
    stores: watch::Receiver<Vec<Arc<Store>>>,
}

impl StoreKeeper {
    /// A keeper that follows `stores`.
    pub fn new(stores: watch::Receiver<Vec<Arc<Store>>>) -> Self {
        StoreKeeper { stores }
    }
}

#[async_trait]
impl BackgroundService for StoreKeeper {
    /// Goes on while the server stops: requests that are still answered are still counted.
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

/// A task that ends when this is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Stores by where they are in memory. What is in the old configuration and in the new one goes on undisturbed.
fn follow(mut kept: HashMap<usize, Task>, stores: Vec<Arc<Store>>) -> HashMap<usize, Task> {
    let task = |store: Arc<Store>| Task(tokio::spawn(keep(store)).abort_handle());
    let known = |store: Arc<Store>| {
        let place = Arc::as_ptr(&store).addr();
        (place, kept.remove(&place).unwrap_or_else(|| task(store)))
    };
    stores.into_iter().map(known).collect()
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Away {
    #[error("{0}")]
    NoConnection(#[from] NoConnection),
    #[error("it could not be connected to within {CONNECT_TIMEOUT:?}")]
    TooLate,
    #[error("{0}")]
    NoAnswer(#[from] NoAnswer),
}

impl Away {
    /// Whether nobody is there, or nobody says anything.
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
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        match connected(&store).await {
            Ok(()) => (told, was_lost) = (String::new(), true),
            Err(away) => {
                // The same is not told again and again, nor that a store that was lost is not there. But what is
                // wrong may become something else, such as a password that does not hold any more.
                let reason = away.to_string();
                let is_known = told == reason || (was_lost && away.is_silence());
                tell(&store, &reason, is_known);
                told = reason;
            }
        }
        if begun.elapsed() >= GOOD {
            pause = FIRST_PAUSE;
            continue;
        }
        // Gateways that have lost it together shall not come back together.
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn tell(store: &Store, reason: &str, is_known: bool) {
    let store = &store.settings.redis;
    if is_known {
        debug!(%store, reason, "the store of rate limits is still away");
    } else {
        warn!(
            %store,
            reason,
            "the store of rate limits cannot be used; this gateway counts by itself until it can"
        );
    }
}

/// Connects the store, and stays as long as that holds.
async fn connected(store: &Arc<Store>) -> Result<(), Away> {
    let connecting = timeout(CONNECT_TIMEOUT, store.settings.connect());
    let (connection, mut driver) = connecting.await.map_err(|_| Away::TooLate)??;
    // With it end the requests that still wait for an answer over this connection.
    let _ends = Task(driver.abort_handle());
    let link = Arc::new(connection);
    // Counted as any request is, so that a Redis is found out that takes no writes (a replica, one without memory),
    // or that needs longer than a request waits.
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
