//! Counters in a Redis that several gateways share. For each request the gateway makes one call, in which a
//! script counts the request in all windows or in none.
//!
//! Requests must not suffer if Redis is unreachable, slow, or faulty. While a [`Store`] has a connection, each
//! request waits at most for the store's timeout. Without a connection, requests do not wait. The first request
//! without a response drops the connection, and [`StoreKeeper`] makes a new connection.

mod connect;
mod reconnect;
mod response_limit;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
pub use connect::{BadStore, Roots, StoreSettings};
pub use reconnect::StoreKeeper;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tracing::{info, warn};

use super::counters::Count;
use crate::telemetry::StoreMetrics;

/// Maximum number of requests that wait for a store at the same time. The gateway itself counts further
/// requests, because with a slow Redis they would pile up in the gateway.
const MAX_WAITING: usize = 1024;

const SCRIPT: &str = include_str!("count.lua");

/// SHA-1 hash of the script, by which Redis knows it.
static SCRIPT_SHA: LazyLock<String> = LazyLock::new(|| hex::encode(openssl::sha::sha1(SCRIPT.as_bytes())));

/// Redis that counts for several gateways.
pub struct Store {
    settings: StoreSettings,
    metrics: StoreMetrics,
    /// Connection to Redis; `None` while the store is not connected.
    link: ArcSwapOption<MultiplexedConnection>,
    room: Semaphore,
    /// Wakes the task that reconnects, after the connection was dropped.
    lost: Notify,
}

/// Query to the store: count a request of a client in a window.
pub(super) struct Ask {
    pub(super) key: String,
    pub(super) limit: u32,
    pub(super) window_ms: u64,
}

/// Reason why the script gave no valid response.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("there was no answer within {0:?}")]
    TooLate(Duration),
    #[error("the answer is not what the script returns")]
    Nonsense,
}

impl Store {
    /// Creates a store without a connection. A [`StoreKeeper`] connects it.
    pub fn new(settings: StoreSettings, metrics: StoreMetrics) -> Self {
        Store {
            settings,
            metrics,
            link: ArcSwapOption::empty(),
            room: Semaphore::new(MAX_WAITING),
            lost: Notify::new(),
        }
    }

    /// Returns the connection settings.
    pub fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Counts a request in all of these windows, or in none. Returns `None` if the store does not respond; it
    /// has then most likely not counted the request.
    pub(super) async fn count(&self, asks: &[Ask]) -> Option<Vec<Count>> {
        let Some(link) = self.link.load_full() else {
            self.metrics.away.inc();
            return None;
        };
        let Ok(_permit) = self.room.try_acquire() else {
            self.metrics.busy.inc();
            return None;
        };
        match self.ask(&link, asks).await {
            Ok(counts) => Some(counts),
            Err(reason) => {
                match reason {
                    NoAnswer::TooLate(_) => self.metrics.too_late.inc(),
                    _ => self.metrics.failed.inc(),
                }
                self.lose(&link, &reason.to_string());
                None
            }
        }
    }

    async fn ask(&self, link: &MultiplexedConnection, asks: &[Ask]) -> Result<Vec<Count>, NoAnswer> {
        let limit = self.settings.timeout;
        timeout(limit, run(link.clone(), asks)).await.map_err(|_| NoAnswer::TooLate(limit))?
    }

    /// Makes requests use this new connection.
    fn find(&self, link: Arc<MultiplexedConnection>) {
        self.link.store(Some(link));
        self.metrics.up.set(1);
        info!(
            store = %self.settings.redis,
            "the store of rate limits answers; it counts the requests from now on"
        );
    }

    /// Makes requests stop using this connection. Only the first of several callers logs the loss.
    fn lose(&self, link: &Arc<MultiplexedConnection>, reason: &str) {
        let was = self.link.compare_and_swap(link, None);
        if was.as_ref().is_some_and(|was| Arc::ptr_eq(was, link)) {
            self.metrics.up.set(0);
            warn!(
                store = %self.settings.redis,
                reason,
                "the store of rate limits does not answer; this gateway counts by itself until it does"
            );
            self.lost.notify_one();
        }
    }

    fn has(&self, link: &Arc<MultiplexedConnection>) -> bool {
        self.link.load().as_ref().is_some_and(|has| Arc::ptr_eq(has, link))
    }
}

/// Runs the script by its hash. If Redis does not know the script, for example after a restart, sends the whole
/// script.
async fn run(mut link: MultiplexedConnection, asks: &[Ask]) -> Result<Vec<Count>, NoAnswer> {
    let answer: Vec<i64> = match command("EVALSHA", &SCRIPT_SHA, asks).query_async(&mut link).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            command("EVAL", SCRIPT, asks).query_async(&mut link).await?
        }
        answer => answer?,
    };
    counts(&answer, asks).ok_or(NoAnswer::Nonsense)
}

fn command(name: &str, script: &str, asks: &[Ask]) -> redis::Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(asks.len());
    for ask in asks {
        command.arg(&ask.key);
    }
    for ask in asks {
        command.arg(ask.limit).arg(ask.window_ms);
    }
    command
}

fn counts(answer: &[i64], asks: &[Ask]) -> Option<Vec<Count>> {
    let (room, states) = answer.split_first()?;
    let count = |(state, ask): (&[i64], &Ask)| {
        let [used, left] = *state else { return None };
        let (used, reset_ms) = (u32::try_from(used).ok()?, u64::try_from(left).ok()?.max(1));
        Some(Count { allowed: *room == 1 || used < ask.limit, used, reset_ms })
    };
    let counts: Option<Vec<Count>> = states.chunks(2).zip(asks).map(count).collect();
    counts.filter(|counts| counts.len() == asks.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(limit: u32) -> Ask {
        Ask { key: "key".to_owned(), limit, window_ms: 1_000 }
    }

    #[test]
    fn response_is_parsed_to_a_count_per_window() {
        let asks = [ask(5), ask(2)];
        let count = |allowed, used, reset_ms| Count { allowed, used, reset_ms };
        assert_eq!(counts(&[1, 5, 10, 1, 0], &asks).unwrap(), [count(true, 5, 10), count(true, 1, 1)]);
        assert_eq!(counts(&[0, 4, 10, 2, 20], &asks).unwrap(), [count(true, 4, 10), count(false, 2, 20)]);
        for nonsense in [&[][..], &[1], &[1, 1, 10], &[1, 1, 10, 1], &[1, -1, 10, 1, 10], &[1, 1, -2, 1, 10]]
        {
            assert_eq!(counts(nonsense, &asks), None, "{nonsense:?}");
        }
    }
}
