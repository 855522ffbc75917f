//! Virtual hosts, here called domains: which there are, which tag serves them, and how they share requests.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::{Caller, Json};
use super::problem::Problem;
use super::{Answer, Api};
use crate::config::{Config, Domain, RolloutState, VirtualHost, hide_secrets, reveal_secrets};
use crate::live::{Applied, Snapshot};

/// Every domain
#[utoipa::path(get, path = "/api/v1/domains", tag = "domains",
    responses((status = 200, body = ref("#/components/schemas/VirtualHostList"))))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.store.load();
    let hosts: Vec<Value> = snapshot.config.virtual_hosts.iter().map(shown).collect();
    api.read(&snapshot, axum::Json(hosts))
}

/// One domain
#[utoipa::path(get, path = "/api/v1/domains/{domain}", tag = "domains", params(("domain" = String, Path)),
    responses((status = 200, body = ref("#/components/schemas/VirtualHost")), (status = 404)))]
pub(super) async fn show(State(api): State<Arc<Api>>, Path(domain): Path<String>) -> Answer {
    let snapshot = api.store.load();
    let host = find(&snapshot.config, &domain)?.1;
    Ok(api.read(&snapshot, axum::Json(shown(host))))
}

/// Serve another domain
#[utoipa::path(post, path = "/api/v1/domains", tag = "domains",
    request_body(content = ref("#/components/schemas/VirtualHost")),
    responses((status = 201, body = ref("#/components/schemas/VirtualHost")), (status = 409)))]
pub(super) async fn create(State(api): State<Arc<Api>>, caller: Caller, body: Json) -> Answer {
    let body = body.object()?;
    let domain = body.get("domain").and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = domain.clone();
    let applied = api
        .write(caller, move |config, json| {
            if find(config, &wanted).is_ok() {
                return Err(Problem::conflict(format!("there is a domain '{wanted}' already")));
            }
            Ok(push(json, "virtual_hosts", body))
        })
        .await?;
    answer(&api, &applied, &domain, StatusCode::CREATED)
}

/// Change a domain, or serve another one; keys that are left out keep their value
#[utoipa::path(put, path = "/api/v1/domains/{domain}", tag = "domains", params(("domain" = String, Path)),
    request_body(content = ref("#/components/schemas/VirtualHost")),
    responses((status = 200, body = ref("#/components/schemas/VirtualHost")),
        (status = 201, body = ref("#/components/schemas/VirtualHost"))))]
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
    body: Json,
) -> Answer {
    let body = body.object()?;
    let wanted = domain.clone();
    let (created, was_created) = std::sync::mpsc::channel();
    let applied = api
        .write(caller, move |config, json| {
            let named = body.get("domain").and_then(Value::as_str).unwrap_or(&wanted);
            if !is_same(named, &wanted) {
                return Err(Problem::invalid("/domain", format!("it is '{wanted}' in the path")));
            }
            match find(config, &wanted) {
                Ok((index, _)) => Ok(merge(json, "virtual_hosts", index, body)),
                Err(_) => {
                    // The channel is read when this is done.
                    let _ = created.send(());
                    let mut host = Map::from_iter([("domain".to_owned(), json!(wanted))]);
                    host.extend(body);
                    Ok(push(json, "virtual_hosts", host))
                }
            }
        })
        .await?;
    let status = if was_created.try_recv().is_ok() { StatusCode::CREATED } else { StatusCode::OK };
    answer(&api, &applied, &domain, status)
}

/// Serve a domain no more
#[utoipa::path(delete, path = "/api/v1/domains/{domain}", tag = "domains", params(("domain" = String, Path)),
    responses((status = 204), (status = 404)))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
) -> Answer {
    let applied = api
        .write(caller, move |config, json| {
            let (index, _) = find(config, &domain)?;
            take_out(json, "virtual_hosts", index);
            Ok(String::new())
        })
        .await?;
    Ok(api.read(&applied.snapshot, StatusCode::NO_CONTENT))
}

/// Where a domain is to go.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    /// The tag of the backends that are to serve it.
    new_tag: String,
}

/// Move a domain to the backends with another tag, all of it at once; from the answer on, no request gets the
/// old one
#[utoipa::path(post, path = "/api/v1/domains/{domain}/switch", tag = "domains", params(("domain" = String, Path)),
    request_body(content = ref("#/components/schemas/Switch")),
    responses((status = 200, body = ref("#/components/schemas/VirtualHost")), (status = 404), (status = 409)))]
pub(super) async fn switch(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
    body: Json,
) -> Answer {
    let Switch { new_tag } = body.read()?;
    let wanted = domain.clone();
    let applied = api
        .write(caller, move |config, json| {
            let (index, host) = find(config, &wanted)?;
            is_not_rolled_out(host)?;
            is_borne(config, &new_tag)?;
            // Shares that other tags had would keep requests from going there.
            let body = Map::from_iter([
                ("enabled_backends_tag".to_owned(), json!(new_tag)),
                ("split".to_owned(), Value::Null),
            ]);
            Ok(merge(json, "virtual_hosts", index, body))
        })
        .await?;
    answer(&api, &applied, &domain, StatusCode::OK)
}

/// The shares that other tags have
#[utoipa::path(get, path = "/api/v1/domains/{domain}/split", tag = "domains", params(("domain" = String, Path)),
    responses((status = 200, body = ref("#/components/schemas/ShareList")), (status = 404)))]
pub(super) async fn split(State(api): State<Arc<Api>>, Path(domain): Path<String>) -> Answer {
    let snapshot = api.store.load();
    let host = find(&snapshot.config, &domain)?.1;
    let rolled_out = host.rollout.iter().filter_map(|rollout| Some((&rollout.to, rollout.share()?)));
    let shares = host.split.iter().map(|share| (&share.tag, share.percent)).chain(rolled_out);
    let shares = shares.map(|(tag, percent)| json!({ "tag": tag, "percent": percent })).collect::<Vec<_>>();
    Ok(api.read(&snapshot, axum::Json(shares)))
}

/// Give other tags a share; the rest goes to the enabled tag
#[utoipa::path(put, path = "/api/v1/domains/{domain}/split", tag = "domains", params(("domain" = String, Path)),
    request_body(content = ref("#/components/schemas/ShareList")),
    responses((status = 200, body = ref("#/components/schemas/ShareList")), (status = 404), (status = 409)))]
pub(super) async fn set_split(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
    Json(body): Json,
) -> Answer {
    let shares = body.clone();
    let applied = api
        .write(caller, move |config, json| {
            let (index, host) = find(config, &domain)?;
            is_not_rolled_out(host)?;
            let at = merge(json, "virtual_hosts", index, Map::from_iter([("split".to_owned(), body)]));
            Ok(format!("{at}/split"))
        })
        .await?;
    Ok(api.read(&applied.snapshot, axum::Json(shares)))
}

/// Give everything to the enabled tag
#[utoipa::path(delete, path = "/api/v1/domains/{domain}/split", tag = "domains", params(("domain" = String, Path)),
    responses((status = 204), (status = 404), (status = 409)))]
pub(super) async fn remove_split(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
) -> Answer {
    let applied = api
        .write(caller, move |config, json| {
            let (index, host) = find(config, &domain)?;
            is_not_rolled_out(host)?;
            let nothing = Map::from_iter([("split".to_owned(), Value::Null)]);
            Ok(merge(json, "virtual_hosts", index, nothing))
        })
        .await?;
    Ok(api.read(&applied.snapshot, StatusCode::NO_CONTENT))
}

/// A domain and where it stands in the configuration.
pub(super) fn find<'c>(config: &'c Config, domain: &str) -> Result<(usize, &'c VirtualHost), Problem> {
    let mut hosts = config.virtual_hosts.iter().enumerate();
    hosts.find(|(_, host)| is_same(&host.domain, domain)).ok_or_else(|| Problem::not_found("domain", domain))
}

fn is_same(one: &str, other: &str) -> bool {
    one == other || matches!((one.parse::<Domain>(), other.parse()), (Ok(one), Ok(other)) if one == other)
}

pub(super) fn is_borne(config: &Config, tag: &str) -> Result<(), Problem> {
    let borne = config.backends.iter().any(|backend| backend.tags.iter().any(|borne| borne == tag));
    if borne { Ok(()) } else { Err(Problem::conflict(format!("no backend bears the tag '{tag}'"))) }
}

pub(super) fn is_not_rolled_out(host: &VirtualHost) -> Result<(), Problem> {
    let running = host.rollout.as_ref().filter(|rollout| rollout.state == RolloutState::Running);
    match running {
        Some(rollout) => Err(Problem::conflict(format!(
            "a rollout to '{}' is under way; DELETE /api/v1/domains/{}/rollout ends it",
            rollout.to, host.domain
        ))),
        None => Ok(()),
    }
}

/// Adds an element to an array of the configuration, and returns its place.
pub(super) fn push(json: &mut Value, array: &str, element: Map<String, Value>) -> String {
    let Some(items) = json.get_mut(array).and_then(Value::as_array_mut) else { return String::new() };
    items.push(Value::Object(element));
    format!("/{array}/{}", items.len() - 1)
}

/// Sets the keys of an element of an array, and takes away those that are null; returns its place.
pub(super) fn merge(json: &mut Value, array: &str, index: usize, body: Map<String, Value>) -> String {
    let at = format!("/{array}/{index}");
    let Some(element) = json.pointer_mut(&at).and_then(Value::as_object_mut) else { return at };
    for (key, value) in body {
        if value.is_null() {
            element.shift_remove(&key);
            continue;
        }
        let mut value = value;
        if let Some(old) = element.get(&key) {
            reveal_secrets(&mut value, old);
        }
        element.insert(key, value);
    }
    at
}

pub(super) fn take_out(json: &mut Value, array: &str, index: usize) {
    if let Some(items) = json.get_mut(array).and_then(Value::as_array_mut) {
        items.remove(index);
    }
}

fn shown(host: &VirtualHost) -> Value {
    // Every key is a string, and every value one that JSON has.
    let mut json = serde_json::to_value(host).unwrap_or_default();
    hide_secrets(&mut json);
    json
}

/// The domain as it is now; where it is new, with its address.
fn answer(api: &Api, applied: &Applied, domain: &str, status: StatusCode) -> Answer {
    let host = find(&applied.snapshot.config, domain)?.1;
    Ok(written(api, &applied.snapshot, status, "domains", domain, shown(host)))
}

/// The answer to a write of one thing.
pub(super) fn written(
    api: &Api,
    snapshot: &Snapshot,
    status: StatusCode,
    kind: &str,
    name: &str,
    body: Value,
) -> Response {
    let mut response = api.read(snapshot, (status, axum::Json(body)).into_response());
    if status == StatusCode::CREATED {
        let location = format!("/api/v1/{kind}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        // Encoded, it is ASCII.
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    response
}
