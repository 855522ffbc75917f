//! Clean-up after a snapshot is replaced: log lines about what changed, and removal of metrics that are no
//! longer in use.

use std::collections::HashSet;

use tracing::info;

use super::snapshot::{Instance, Snapshot};
use crate::live::compile::certificates::tell_of_certificates;
use crate::telemetry::Metrics;

/// Logs the addresses that were added to or removed from a backend's name, and the new certificates.
pub(super) fn tell(before: &Snapshot, now: &Snapshot) {
    let names = |snapshot: &Snapshot| -> HashSet<String> {
        let of_names = snapshot.instances().filter(|instance| instance.state.host.is_some());
        of_names.map(|instance| instance.state.name.clone()).collect()
    };
    let (were, are) = (names(before), names(now));
    for name in are.difference(&were) {
        info!(backend = name, "a name resolves to a new address");
    }
    for name in were.difference(&are) {
        info!(backend = name, "a name no longer resolves to this address");
    }
    tell_of_certificates(before, now);
}

/// Removes the metrics of all parts of `before` (routes, backends, certificates…) that `now` lacks.
pub(super) fn forget(metrics: &Metrics, before: &Snapshot, now: &Snapshot) {
    for (vhost, route) in before.routes.keys().filter(|key| !now.routes.contains_key(*key)) {
        metrics.forget_route(vhost, route);
    }
    for (vhost, tag) in before.compared_tags().difference(&now.compared_tags()) {
        metrics.forget_tag(vhost, tag);
    }
    for (vhost, route, window) in before.windows().difference(&now.windows()) {
        metrics.rate_limits.forget(vhost, route, window);
    }
    let names = |snapshot: &Snapshot| -> HashSet<String> {
        snapshot.stores.iter().map(|store| store.settings().redis.to_string()).collect()
    };
    for store in names(before).difference(&names(now)) {
        metrics.rate_limits.forget_store(store);
    }
    let now_shown: HashSet<(&str, &str)> = now.shown_certificates().collect();
    for (vhost, key) in before.shown_certificates().filter(|shown| !now_shown.contains(shown)) {
        metrics.forget_certificate(vhost, key);
    }
    let fetched: HashSet<&str> = now.kept.key_sets().map(|set| set.url.as_str()).collect();
    for set in before.kept.key_sets().filter(|set| !fetched.contains(set.url.as_str())) {
        metrics.auth.forget_key_set(&set.url);
    }
    let known: HashSet<&str> = now.instances().map(|instance| instance.state.name.as_str()).collect();
    for Instance { state, .. } in before.instances() {
        if !known.contains(state.name.as_str()) {
            metrics.backends.forget(&state.name);
        }
    }
}
