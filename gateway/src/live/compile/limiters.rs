//! Compiles the rate limits of all routes, with their counters and with the stores that several gateways share.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, CounterStore, PathFault, RateLimit, RateLimitScope, RateLimits, VirtualHost};
use crate::live::effective::EffectivePolicies;
use crate::live::snapshot::{Level, Snapshot};
use crate::policy::rate_limit::{BadStore, Counters, LimiterDeps, RateLimiter, Roots, Store, StoreSettings};
use crate::telemetry::Metrics;
use crate::util::secrets::Secrets;

/// Builder of all rate limiters of a snapshot.
pub(in crate::live) struct Limiters<'c> {
    metrics: &'c Metrics,
    secrets: &'c Secrets,
    /// Maximum number of clients whose requests are counted (`proxy.rate_limit_clients`).
    clients: usize,
    /// Counters of all rate limits together, created when the first rate limit needs them.
    counters: OnceCell<Arc<Counters>>,
    /// Stores of the previous snapshot.
    known: &'c [Arc<Store>],
    stores: Vec<Arc<Store>>,
    /// Root certificates by file; each file is read once.
    roots: HashMap<String, Roots>,
}

impl<'c> Limiters<'c> {
    /// Creates a builder. The new snapshot shares the counters and stores of the snapshot `before` if their
    /// settings are unchanged.
    pub(in crate::live) fn new(
        config: &Config,
        before: Option<&'c Snapshot>,
        metrics: &'c Metrics,
        secrets: &'c Secrets,
    ) -> Self {
        let clients = config.proxy.rate_limit_clients.get();
        let counters = before.and_then(|before| before.counters.clone());
        let counters = counters.filter(|counters| counters.has_room_for(clients));
        Limiters {
            metrics,
            secrets,
            clients,
            counters: counters.map_or_else(OnceCell::new, OnceCell::from),
            known: before.map_or(&[], |before| &before.stores),
            stores: Vec::new(),
            roots: HashMap::new(),
        }
    }

    /// Returns the rate limiter of the route `name`, if any. `at` is the route's path in the configuration.
    pub(in crate::live) fn limiter(
        &mut self,
        at: &str,
        host: &VirtualHost,
        policies: &EffectivePolicies<'_>,
        name: &str,
    ) -> Result<Option<RateLimiter>, Vec<PathFault>> {
        let Some(limits) = policies.rate_limit else { return Ok(None) };
        let store = self
            .store(limits.table)
            .map_err(|(key, bad)| limits.fault(at, &format!("rate_limit/{key}"), bad.detail))?;
        let route = format!("route {} {name}", host.domain);
        let shared = match limits.level {
            Level::Top => "gateway".to_owned(),
            Level::VirtualHost => format!("host {}", host.domain),
            Level::Route | Level::Default => route.clone(),
        };
        let new = || Counters::new(self.clients, self.metrics.rate_limits.evicted.clone()).into();
        let means = LimiterDeps {
            scope: &|scope| if scope == RateLimitScope::Global { &shared } else { &route },
            counters: self.counters.get_or_init(new),
            store: store.as_ref(),
            refusals: &|window| self.metrics.rate_limits.refusals(&host.domain, name, window),
        };
        Ok(RateLimiter::new(limits.table, &means))
    }

    /// Returns the store that counts for these windows, or `None` if this gateway counts all of them.
    fn store(&mut self, limits: &RateLimits) -> Result<Option<Arc<Store>>, (String, BadStore)> {
        let is_shared = |window: &RateLimit| window.store != CounterStore::Local;
        let Some(i) = limits.0.iter().position(is_shared) else { return Ok(None) };
        let window = &limits.0[i];
        let bad = |bad: BadStore| (limits.path(i, bad.key), bad);
        let roots = self.roots(&window.store_ca_file).map_err(bad)?;
        let mut known = self.stores.iter().chain(self.known);
        if let Some(store) = known.find(|store| store.settings().are_of(window, &roots)) {
            let store = store.clone();
            self.keep(&store);
            return Ok(Some(store));
        }
        let settings = StoreSettings::new(window, roots, self.secrets).map_err(bad)?;
        let store = settings.map(|settings| {
            let metrics = self.metrics.rate_limits.store(&settings.redis.to_string());
            Arc::new(Store::new(settings, metrics))
        });
        store.iter().for_each(|store| self.keep(store));
        Ok(store)
    }

    fn roots(&mut self, file: &str) -> Result<Roots, BadStore> {
        if let Some(roots) = self.roots.get(file) {
            return Ok(roots.clone());
        }
        let roots = StoreSettings::roots(file)?;
        self.roots.insert(file.to_owned(), roots.clone());
        Ok(roots)
    }

    fn keep(&mut self, store: &Arc<Store>) {
        if !self.stores.iter().any(|kept| Arc::ptr_eq(kept, store)) {
            self.stores.push(store.clone());
        }
    }

    /// Returns the counters and the stores. The counters are `None` if no rate limit has needed them so far.
    pub(in crate::live) fn finish(self) -> (Option<Arc<Counters>>, Vec<Arc<Store>>) {
        (self.counters.into_inner(), self.stores)
    }
}
