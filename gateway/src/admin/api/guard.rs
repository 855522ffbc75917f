//! What a write may not do unasked: take the last backend away that the requests of a tag can go to. All of them would
//! be answered with 503 (Service Unavailable).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::problem::Problem;
use crate::config::{Backend, Config};
use crate::live::{BackendCondition, Snapshot};

/// What is to become of a backend.
pub(super) enum Fate<'a> {
    /// It gets no requests any more.
    Drained,
    /// It leaves the configuration.
    Removed,
    /// These keys of it change.
    Changed(&'a Map<String, Value>),
}

impl Fate<'_> {
    /// Returns the tags whose requests the backend `own` still gets.
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
            Fate::Removed => "takes it away",
            Fate::Changed(_) => "changes it",
        }
    }
}

/// Refuses a change of the backend `id` that leaves a tag in use without a usable backend, where it has one now.
/// `snapshot` is what runs, with `config`.
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
        // A tag that no backend bears is refused by validation, which says it better.
        return Ok(());
    }
    let unusable = others.iter().filter(|other| bears(other, tag));
    let unusable: Vec<String> =
        unusable.map(|other| format!("'{}' is {}", other.id, said(condition(snapshot, other)))).collect();
    let unusable = if unusable.is_empty() { String::new() } else { format!(" ({})", unusable.join(", ")) };
    let kind = if unusable.is_empty() { "last" } else { "last usable" };
    Err(Problem::conflict(format!(
        "'{id}' is the {kind} backend with the tag '{tag}', which is in use{unusable}; ?force=true {} all the same, and \
         requests are then answered with 503",
        fate.verb()
    )))
}

/// The tags that some virtual host or route sends requests to.
pub(super) fn used_tags(config: &Config) -> HashSet<&str> {
    let of_hosts = config.virtual_hosts.iter().flat_map(|host| {
        let rollout = host.rollout.iter().filter(|rollout| rollout.share().is_some());
        let routes = host.routes.iter().map(|route| &route.enabled_backends_tag);
        let shares = host.split.iter().map(|share| &share.tag).chain(rollout.map(|rollout| &rollout.to));
        [&host.enabled_backends_tag].into_iter().chain(routes).chain(shares)
    });
    of_hosts.map(String::as_str).collect()
}

/// The best condition of the instances of `backend`. One whose name leads nowhere yet cannot be asked.
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
        BackendCondition::CircuitOpen => "not asked, as its circuit is open",
        BackendCondition::Drained => "drained",
    }
}
