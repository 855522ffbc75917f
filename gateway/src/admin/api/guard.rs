//! Guard against a write after which a tag in use has no usable backend. All requests for such a tag would get 503
//! (Service Unavailable). `?force=true` permits such a write.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::problem::Problem;
use crate::config::{Backend, Config};
use crate::live::{BackendCondition, Snapshot};

/// Intended change of a backend.
pub(super) enum Fate<'a> {
    /// The backend gets no new requests.
    Drained,
    /// The backend is removed from the configuration.
    Removed,
    /// The backend's keys change to these values.
    Changed(&'a Map<String, Value>),
}

impl Fate<'_> {
    /// Returns the tags for which the backend `own` still gets requests after the change.
    fn tags_left(&self, own: &Backend) -> HashSet<String> {
        match self {
            Fate::Drained | Fate::Removed => HashSet::new(),
            Fate::Changed(keys) if keys.get("drained") == Some(&Value::Bool(true)) => HashSet::new(),
            Fate::Changed(keys) => match keys.get("tags").and_then(Value::as_array) {
                Some(tags) => tags.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                None => own.tags.iter().cloned().collect(),
            },
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Fate::Drained => "drains it",
            Fate::Removed => "removes it",
            Fate::Changed(_) => "changes it",
        }
    }
}

/// Refuses a change of the backend `id` that leaves a tag in use without a usable backend, if the tag now has such a
/// backend. `snapshot` is the running snapshot of `config`.
pub(super) fn keeps_serving(
    config: &Config,
    snapshot: &Snapshot,
    id: &str,
    fate: &Fate<'_>,
) -> Result<(), Problem> {
    let (own, others): (Vec<&Backend>, Vec<&Backend>) =
        config.backends.iter().partition(|backend| backend.id == id);
    let Some(own) = own.first().filter(|own| condition(snapshot, own) == BackendCondition::Usable) else {
        return Ok(());
    };
    let (used, left) = (used_tags(config), fate.tags_left(own));
    let bears = |backend: &&&Backend, tag: &String| backend.tags.contains(tag);
    let is_served = |tag: &String| {
        let mut others = others.iter().filter(|other| bears(other, tag));
        others.any(|other| condition(snapshot, other) == BackendCondition::Usable)
    };
    let lost =
        own.tags.iter().find(|tag| used.contains(tag.as_str()) && !left.contains(*tag) && !is_served(tag));
    let Some(tag) = lost else { return Ok(()) };
    let is_borne = others.iter().any(|other| other.tags.contains(tag));
    if !is_borne && matches!(fate, Fate::Changed(keys) if keys.get("drained") != Some(&Value::Bool(true))) {
        // Validation also refuses a tag without any backend, with a better message.
        return Ok(());
    }
    let unusable = others.iter().filter(|other| bears(other, tag));
    let unusable: Vec<String> =
        unusable.map(|other| format!("'{}' is {}", other.id, said(condition(snapshot, other)))).collect();
    let unusable = if unusable.is_empty() { String::new() } else { format!(" ({})", unusable.join(", ")) };
    let kind = if unusable.is_empty() { "last" } else { "last usable" };
    Err(Problem::conflict(format!(
        "'{id}' is the {kind} backend with the tag '{tag}', which is in use{unusable}; ?force=true {} \
         anyway, and requests are then answered with 503",
        fate.verb()
    )))
}

/// Returns the tags that a virtual host or route sends requests to.
pub(super) fn used_tags(config: &Config) -> HashSet<&str> {
    let of_hosts = config.virtual_hosts.iter().flat_map(|host| {
        let rollout = host.rollout.iter().filter(|rollout| rollout.share().is_some());
        let routes = host.routes.iter().map(|route| &route.enabled_backends_tag);
        let shares = host.split.iter().map(|share| &share.tag).chain(rollout.map(|rollout| &rollout.to));
        [&host.enabled_backends_tag].into_iter().chain(routes).chain(shares)
    });
    of_hosts.map(String::as_str).collect()
}

/// Returns the best condition of the instances of `backend`. A backend whose name has no address yet counts as
/// unhealthy.
pub(super) fn condition(snapshot: &Snapshot, backend: &Backend) -> BackendCondition {
    if backend.drained {
        return BackendCondition::Drained;
    }
    let position = snapshot.config.backends.iter().position(|known| known.id == backend.id);
    let instances = position.and_then(|position| snapshot.backends.get(position)).into_iter().flatten();
    let conditions = instances.map(|instance| BackendCondition::from(&*instance.state));
    conditions.min_by_key(|condition| *condition as u8).unwrap_or(BackendCondition::Unhealthy)
}

fn said(condition: BackendCondition) -> &'static str {
    match condition {
        BackendCondition::Usable => "usable",
        BackendCondition::Unhealthy => "unhealthy",
        BackendCondition::CircuitOpen => "not used, because its circuit is open",
        BackendCondition::Drained => "drained",
    }
}
