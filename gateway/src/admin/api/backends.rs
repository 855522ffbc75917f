//! Endpoints for backends: list, add, change, remove, drain.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::body::{Caller, Json};
use super::edit::{Edited, merge, only, push, take_out};
use super::guard::{Fate, keeps_serving, used_tags};
use super::problem::Problem;
use super::{Answer, Api, Written};
use crate::config::{Backend, Config};
use crate::live::{BackendCondition, Instance, Snapshot};
use crate::telemetry::BackendMetrics;
use crate::upstream::CircuitState;

/// A backend and its current state.
#[derive(Serialize, JsonSchema)]
pub(super) struct BackendView {
    #[serde(flatten)]
    backend: Backend,
    /// Current state of the backend.
    status: BackendStatus,
}

/// Current state of a backend. If its name resolves to several addresses, each number is the sum over these
/// addresses.
#[derive(Serialize, JsonSchema)]
pub(super) struct BackendStatus {
    /// Current condition of the backend: usable, or the reason why it gets no requests. If the backend has several
    /// instances, this is the best condition among them.
    condition: BackendCondition,
    /// True if health checks pass; also true if there are none.
    healthy: bool,
    /// State of the circuit breaker.
    breaker: CircuitState,
    /// Requests in flight to the backend.
    requests_active: u64,
    /// Attempts to have the backend answer a request, since the backend was added.
    requests_total: u64,
    /// Connections opened to the backend.
    connections_total: u64,
    /// Attempts to open a connection that failed.
    connection_errors_total: u64,
    /// State of each address of the backend.
    instances: Vec<InstanceStatus>,
}

/// State of one address of a backend.
#[derive(Serialize, JsonSchema)]
struct InstanceStatus {
    /// Name of the instance in logs and metrics.
    name: String,
    /// Address of the instance.
    address: String,
    /// Current condition of the instance: usable, or the reason why it gets no requests.
    condition: BackendCondition,
    /// True if health checks pass; also true if there are none.
    healthy: bool,
    /// State of the circuit breaker.
    breaker: CircuitState,
    /// Seconds until a request tries the instance again; absent unless the circuit is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_for_secs: Option<f64>,
    /// Requests in flight to the instance.
    requests_active: u32,
}

impl From<&Instance> for InstanceStatus {
    fn from(Instance { state, .. }: &Instance) -> Self {
        InstanceStatus {
            name: state.name.clone(),
            address: state.endpoint.to_string(),
            condition: (&**state).into(),
            healthy: state.is_healthy(),
            breaker: state.circuit(),
            open_for_secs: state.circuit_open_for().map(|left| left.as_secs_f64()),
            requests_active: state.inflight(),
        }
    }
}

impl From<&[Instance]> for BackendStatus {
    fn from(instances: &[Instance]) -> Self {
        let all: Vec<InstanceStatus> = instances.iter().map(InstanceStatus::from).collect();
        let best = all.iter().min_by_key(|instance| instance.condition as u8);
        let sum = |count: fn(&BackendMetrics) -> u64| {
            instances.iter().map(|instance| count(&instance.state.metrics)).sum()
        };
        BackendStatus {
            condition: best.map_or(BackendCondition::Unhealthy, |best| best.condition),
            healthy: best.is_some_and(|best| best.healthy),
            breaker: best.map_or(CircuitState::Closed, |best| best.breaker),
            requests_active: all.iter().map(|instance| u64::from(instance.requests_active)).sum(),
            requests_total: sum(|metrics| metrics.requests.get()),
            connections_total: sum(|metrics| metrics.connections.get()),
            connection_errors_total: sum(|metrics| metrics.connection_errors.get()),
            instances: all,
        }
    }
}

/// Lists every backend
#[utoipa::path(get, path = "/api/v1/backends", tag = "backends",
    responses((status = 200, body = ref("#/components/schemas/BackendViewList"))))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.store.load();
    let views: Vec<BackendView> = views(&snapshot).collect();
    api.read(&snapshot, axum::Json(views))
}

/// Shows one backend
#[utoipa::path(get, path = "/api/v1/backends/{id}", tag = "backends", params(("id" = String, Path)),
    responses((status = 200, body = ref("#/components/schemas/BackendView")), (status = 404)))]
pub(super) async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer {
    let snapshot = api.store.load();
    let view = view(&snapshot, &id)?;
    Ok(api.read(&snapshot, axum::Json(view)))
}

/// Adds a backend
#[utoipa::path(post, path = "/api/v1/backends", tag = "backends",
    request_body(content = ref("#/components/schemas/Backend")),
    responses((status = 201, body = ref("#/components/schemas/BackendView")), (status = 409)))]
pub(super) async fn create(State(api): State<Arc<Api>>, caller: Caller, body: Json) -> Answer {
    let body = body.object()?;
    let id = body.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = id.clone();
    let edit = move |config: &Config, json: &mut Value| {
        if find(config, &wanted).is_ok() {
            return Err(Problem::conflict(format!("the backend '{wanted}' exists already")));
        }
        fill_tags(json, &body);
        Ok(push(json, "backends", body))
    };
    answer(&api, &api.write(caller, edit).await?, &id)
}

/// Changes a backend, or adds it
///
/// Keys that are left out keep their value.
#[utoipa::path(put, path = "/api/v1/backends/{id}", tag = "backends",
    params(("id" = String, Path), ("force" = Option<bool>, Query)),
    request_body(content = ref("#/components/schemas/Backend")),
    responses((status = 200, body = ref("#/components/schemas/BackendView")),
        (status = 201, body = ref("#/components/schemas/BackendView"))))]
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    caller: Caller,
    body: Json,
) -> Answer {
    let body = body.object()?;
    let (wanted, running, force) = (id.clone(), api.clone(), caller.options.force);
    let edit = move |config: &Config, json: &mut Value| {
        if body.get("id").and_then(Value::as_str).is_some_and(|named| named != wanted) {
            return Err(Problem::invalid("/id", format!("expected '{wanted}', as in the path")));
        }
        fill_tags(json, &body);
        if let Ok(index) = find(config, &wanted) {
            if !force {
                keeps_serving(config, &running.store.load(), &wanted, &Fate::Changed(&body))?;
            }
            return Ok(merge(json, "backends", index, body));
        }
        let mut backend = only("id", json!(wanted));
        backend.extend(body);
        let not_found = Some(not_found(config, &wanted).to_string());
        Ok(Edited { not_found, ..push(json, "backends", backend) })
    };
    answer(&api, &api.write(caller, edit).await?, &id)
}

/// Removes a backend
///
/// The last usable backend of a tag in use is not removed, unless the removal is forced. After a forced
/// removal, requests for the tag get 503.
#[utoipa::path(delete, path = "/api/v1/backends/{id}", tag = "backends",
    params(("id" = String, Path), ("force" = Option<bool>, Query)),
    responses((status = 204), (status = 404), (status = 409)))]
pub(super) async fn remove(State(api): State<Arc<Api>>, Path(id): Path<String>, caller: Caller) -> Answer {
    let (running, force) = (api.clone(), caller.options.force);
    let edit = move |config: &Config, json: &mut Value| {
        let index = find(config, &id)?;
        let last_of = last_of(config, &id);
        if !last_of.is_empty() && !force {
            let tags = last_of.join("', '");
            return Err(Problem::conflict(format!(
                "'{id}' is the last backend with the tag '{tags}', which is in use; ?force=true removes it \
                 anyway, and requests are then answered with 503"
            )));
        }
        if !force {
            keeps_serving(config, &running.store.load(), &id, &Fate::Removed)?;
        }
        if !last_of.is_empty() {
            let empty: Vec<&String> = config.empty_tags.iter().chain(&last_of).collect();
            json["empty_tags"] = json!(empty);
        }
        Ok(take_out(json, "backends", index))
    };
    let written = api.write(caller, edit).await?;
    Ok(api.read(&written.applied.snapshot, StatusCode::NO_CONTENT))
}

/// Drains a backend: it gets no new requests, and requests in flight are completed
///
/// The last usable backend of a tag in use is not drained, unless the drain is forced. After a forced drain,
/// requests for the tag get 503.
#[utoipa::path(post, path = "/api/v1/backends/{id}/drain", tag = "backends",
    params(("id" = String, Path), ("force" = Option<bool>, Query)),
    responses((status = 200, body = ref("#/components/schemas/BackendView")), (status = 404), (status = 409)))]
pub(super) async fn drain(State(api): State<Arc<Api>>, Path(id): Path<String>, caller: Caller) -> Answer {
    set_drained(&api, id, caller, true).await
}

/// Ends the drain of a backend: it gets requests again
#[utoipa::path(post, path = "/api/v1/backends/{id}/undrain", tag = "backends", params(("id" = String, Path)),
    responses((status = 200, body = ref("#/components/schemas/BackendView")), (status = 404)))]
pub(super) async fn undrain(State(api): State<Arc<Api>>, Path(id): Path<String>, caller: Caller) -> Answer {
    set_drained(&api, id, caller, false).await
}

async fn set_drained(api: &Arc<Api>, id: String, caller: Caller, drained: bool) -> Answer {
    let (wanted, running, force) = (id.clone(), api.clone(), caller.options.force);
    let edit = move |config: &Config, json: &mut Value| {
        let index = find(config, &wanted)?;
        if drained && !force {
            keeps_serving(config, &running.store.load(), &wanted, &Fate::Drained)?;
        }
        let drained = if drained { json!(true) } else { Value::Null };
        Ok(merge(json, "backends", index, only("drained", drained)))
    };
    answer(api, &api.write(caller, edit).await?, &id)
}

fn find(config: &Config, id: &str) -> Result<usize, Problem> {
    let index = config.backends.iter().position(|backend| backend.id == id);
    index.ok_or_else(|| not_found(config, id))
}

fn not_found(config: &Config, id: &str) -> Problem {
    Problem::not_found_among("backend", id, config.backends.iter().map(|backend| &*backend.id))
}

/// Returns the tags in use that only the backend `id` has.
fn last_of(config: &Config, id: &str) -> Vec<String> {
    let used = used_tags(config);
    let (own, others): (Vec<&Backend>, Vec<&Backend>) =
        config.backends.iter().partition(|backend| backend.id == id);
    let borne: HashSet<&String> = others.iter().flat_map(|backend| &backend.tags).collect();
    let tags = own.iter().flat_map(|backend| &backend.tags);
    tags.filter(|tag| !borne.contains(tag) && used.contains(tag.as_str())).cloned().collect()
}

/// Removes the tags of `backend` from `empty_tags`, because they are not empty any more.
fn fill_tags(json: &mut Value, backend: &Map<String, Value>) {
    let Some(tags) = backend.get("tags").and_then(Value::as_array) else { return };
    if let Some(empty) = json.get_mut("empty_tags").and_then(Value::as_array_mut) {
        empty.retain(|tag| !tags.contains(tag));
    }
}

fn views(snapshot: &Snapshot) -> impl Iterator<Item = BackendView> {
    let with_state = snapshot.config.backends.iter().zip(&snapshot.backends);
    with_state
        .map(|(backend, instances)| BackendView { backend: backend.clone(), status: (&instances[..]).into() })
}

fn view(snapshot: &Snapshot, id: &str) -> Result<BackendView, Problem> {
    views(snapshot).find(|view| view.backend.id == id).ok_or_else(|| not_found(&snapshot.config, id))
}

/// Returns the response to a write: the backend in its new state.
fn answer(api: &Api, written: &Written, id: &str) -> Answer {
    let view = view(&written.applied.snapshot, id)?;
    Ok(api.written(written, "backends", id, view))
}
