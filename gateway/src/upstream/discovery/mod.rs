//! Discovery of backends by name. Each address in DNS's answer is a separate backend. A name is looked up again when
//! the time to live of the last answer is over. If a lookup fails, the last known addresses stay in use.

mod error;
mod lookup;
mod options;
mod resolvers;
mod udp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use error::LookupError;
use lookup::{Answers, look_up};
pub use lookup::{ResolvedAddress, ResolvedAddresses, fixed, look_up_now};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use prometheus::IntCounter;
use resolvers::Resolvers;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::config::Address;
use crate::util::backoff::Backoff;

/// Minimum time between two lookups of a name, even if the answer's time to live is shorter.
const SOONEST: Duration = Duration::from_secs(1);

/// Pauses after failed lookups of a name.
const BACKOFF: Backoff = Backoff { first: SOONEST, most: Duration::from_secs(32) };

/// Maximum time between two lookups of a name. It also applies to a name in the hosts file, which has no time to live.
const LATEST: Duration = Duration::from_secs(300);

/// Background service that looks up the names of backends until the server stops.
pub struct Discoverer {
    /// Names in the running configuration, with their current addresses.
    pub known: watch::Receiver<Arc<ResolvedAddresses>>,
    /// DNS servers to ask; if empty, those of the system.
    pub servers: Vec<SocketAddr>,
    /// Callback for the new addresses of a name, after they have changed. The callback may block.
    pub tell: Arc<dyn Fn(ResolvedAddresses) + Send + Sync>,
    /// Counter of answered lookups.
    pub answered: IntCounter,
    /// Counter of failed lookups.
    pub failed: IntCounter,
}

/// Time of a name's next lookup, and the number of consecutive failures.
struct Next {
    /// Time of the next lookup; `None` while a lookup is under way.
    at: Option<Instant>,
    failures: u32,
}

impl Next {
    fn after(pause: Duration, failures: u32) -> Self {
        Next { at: Some(Instant::now() + pause), failures }
    }
}

#[async_trait]
impl BackgroundService for Discoverer {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.follow() => {}
            _ = shutdown.changed() => {}
        }
    }
}

impl Discoverer {
    async fn follow(&self) {
        let resolvers = match Resolvers::new(&self.servers) {
            Ok(resolvers) => Arc::new(resolvers),
            Err(LookupError { reason, .. }) => {
                return warn!(
                    reason,
                    "cannot resolve the names of backends again; the known addresses stay in use"
                );
            }
        };
        let mut known = self.known.clone();
        let mut next: HashMap<Address, Next> = HashMap::new();
        let mut asking = JoinSet::new();
        loop {
            let resolved = known.borrow_and_update().clone();
            next.retain(|name, _| resolved.contains_key(name));
            for name in resolved.keys() {
                // A new name was looked up a moment ago, but without its time to live. So it is looked up again soon.
                next.entry(name.clone()).or_insert_with(|| Next::after(SOONEST, 0));
            }
            let now = Instant::now();
            for (name, next) in next.iter_mut().filter(|(_, next)| next.at.is_some_and(|at| at <= now)) {
                next.at = None;
                let (name, resolvers, before) = (name.clone(), resolvers.clone(), resolved[name].clone());
                asking.spawn(async move {
                    let answer = look_up(&resolvers, &name, &before).await;
                    (name, answer)
                });
            }
            let soonest = next.values().filter_map(|next| next.at).min();
            let next_is_due = async {
                match soonest {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = next_is_due => {}
                changed = known.changed() => if changed.is_err() { return },
                Some(Ok((name, answer))) = asking.join_next() => {
                    let Some(next) = next.get_mut(&name) else { continue };
                    let found = self.take_in(&name, answer, next);
                    if let Some(found) = found.filter(|found| Some(found) != resolved.get(&name)) {
                        let tell = self.tell.clone();
                        // The result is ignored, because the callback itself reports failures.
                        let _ = tokio::task::spawn_blocking(move || tell(ResolvedAddresses::from([(name, found)]))).await;
                    }
                }
            }
        }
    }

    /// Schedules the next lookup of `name`. Returns the addresses in `answer`; `None` if the lookup failed.
    fn take_in(
        &self,
        name: &Address,
        answer: Result<Answers, LookupError>,
        next: &mut Next,
    ) -> Option<Vec<ResolvedAddress>> {
        match answer {
            Ok(found) => {
                self.answered.inc();
                if next.failures > 0 {
                    info!(%name, "the name of a backend resolves again");
                }
                *next = Next::after(found.valid_for.clamp(SOONEST, LATEST), 0);
                Some(found.addresses)
            }
            Err(LookupError { reason, .. }) => {
                self.failed.inc();
                if next.failures == 0 {
                    warn!(
                        %name,
                        reason,
                        "the name of a backend cannot be looked up; its last addresses stay in use"
                    );
                }
                let failures = next.failures.saturating_add(1);
                *next = Next::after(BACKOFF.delay(failures), failures);
                None
            }
        }
    }
}
