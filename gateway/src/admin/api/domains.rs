//! Endpoints for virtual hosts, which the API calls domains: list, add, change, remove, switch to another tag,
//! split between tags.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Caller, Json};
use super::edit::{Edited, merge, only, push, take_out};
use super::problem::Problem;
use super::{Answer, Api, Written};
use crate::config::{Config, Domain, Percent, RolloutState, Share, VirtualHost, did_you_mean, hide_secrets};

/// Lists every domain
#[utoipa::path(get, path = "/api/v1/domains", tag = "domains",
    responses((status = 200, body = ref("#/components/schemas/VirtualHostList"))))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.store.load();
    let hosts: Vec<Value> = snapshot.config.virtual_hosts.iter().map(shown).collect();
    api.read(&snapshot, axum::Json(hosts))
}

/// Shows one domain
#[utoipa::path(get, path = "/api/v1/domains/{domain}", tag = "domains", params(("domain" = String, Path)),
    responses((status = 200, body = ref("#/components/schemas/VirtualHost")), (status = 404)))]
pub(super) async fn show(State(api): State<Arc<Api>>, Path(domain): Path<String>) -> Answer {
    let snapshot = api.store.load();
    let host = find(&snapshot.config, &domain)?.1;
    Ok(api.read(&snapshot, axum::Json(shown(host))))
}

/// Adds a domain
#[utoipa::path(post, path = "/api/v1/domains", tag = "domains",
    request_body(content = ref("#/components/schemas/VirtualHost")),
    responses((status = 201, body = ref("#/components/schemas/VirtualHost")), (status = 409)))]
pub(super) async fn create(State(api): State<Arc<Api>>, caller: Caller, body: Json) -> Answer {
    let body = body.object()?;
    let domain = body.get("domain").and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = domain.clone();
    let edit = move |config: &Config, json: &mut Value| match find(config, &wanted) {
        Ok(_) => Err(Problem::conflict(format!("the domain '{wanted}' exists already"))),
        Err(_) => Ok(push(json, "virtual_hosts", body)),
    };
    answer(&api, &api.write(caller, edit).await?, &domain)
}

/// Changes a domain, or adds it
///
/// Keys that are left out keep their value. A key whose value is null is removed.
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
    let edit = move |config: &Config, json: &mut Value| {
        let named = body.get("domain").and_then(Value::as_str).unwrap_or(&wanted);
        if !is_same(named, &wanted) {
            return Err(Problem::invalid("/domain", format!("expected '{wanted}', as in the path")));
        }
        if let Ok((index, _)) = find(config, &wanted) {
            return Ok(merge(json, "virtual_hosts", index, body));
        }
        let mut host = only("domain", json!(wanted));
        host.extend(body);
        let not_found = Some(not_found(config, &wanted).to_string());
        Ok(Edited { not_found, ..push(json, "virtual_hosts", host) })
    };
    answer(&api, &api.write(caller, edit).await?, &domain)
}

/// Removes a domain
#[utoipa::path(delete, path = "/api/v1/domains/{domain}", tag = "domains", params(("domain" = String, Path)),
    responses((status = 204), (status = 404)))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
) -> Answer {
    let edit = move |config: &Config, json: &mut Value| {
        let (index, _) = find(config, &domain)?;
        Ok(take_out(json, "virtual_hosts", index))
    };
    let written = api.write(caller, edit).await?;
    Ok(api.read(&written.applied.snapshot, StatusCode::NO_CONTENT))
}

/// Target of a switch.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    /// Tag of the backends that will serve the domain.
    new_tag: String,
}

/// Moves all requests for a domain to the backends with another tag, at once
///
/// After the response, no new request goes to the old tag.
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
    let edit = move |config: &Config, json: &mut Value| {
        let (index, host) = find(config, &wanted)?;
        is_not_rolled_out(host)?;
        is_served(config, &new_tag)?;
        // Shares of other tags would still get requests, so the split ends.
        let mut change = only("split", Value::Null);
        // The record of an ended rollout is not about the new tag, so it is removed.
        change.insert("rollout".to_owned(), Value::Null);
        change.insert("enabled_backends_tag".to_owned(), json!(new_tag));
        Ok(merge(json, "virtual_hosts", index, change))
    };
    answer(&api, &api.write(caller, edit).await?, &domain)
}

/// Shows the shares of the tags beside the enabled tag
#[utoipa::path(get, path = "/api/v1/domains/{domain}/split", tag = "domains", params(("domain" = String, Path)),
    responses((status = 200, body = ref("#/components/schemas/ShareList")), (status = 404)))]
pub(super) async fn split(State(api): State<Arc<Api>>, Path(domain): Path<String>) -> Answer {
    let snapshot = api.store.load();
    let shares = shares(find(&snapshot.config, &domain)?.1);
    Ok(api.read(&snapshot, axum::Json(shares)))
}

/// Gives other tags a share of the requests
///
/// The enabled tag gets the other requests.
#[utoipa::path(put, path = "/api/v1/domains/{domain}/split", tag = "domains", params(("domain" = String, Path)),
    request_body(content = ref("#/components/schemas/ShareList")),
    responses((status = 200, body = ref("#/components/schemas/ShareList")), (status = 404), (status = 409)))]
pub(super) async fn set_split(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
    Json(body): Json,
) -> Answer {
    let wanted = domain.clone();
    let written = api.write(caller, move |config, json| share(config, json, &wanted, body)).await?;
    let snapshot = &written.applied.snapshot;
    Ok(api.read(snapshot, axum::Json(shares(find(&snapshot.config, &domain)?.1))))
}

/// Removes the shares of other tags: all requests go to the enabled tag
#[utoipa::path(delete, path = "/api/v1/domains/{domain}/split", tag = "domains", params(("domain" = String, Path)),
    responses((status = 204), (status = 404), (status = 409)))]
pub(super) async fn remove_split(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
) -> Answer {
    let written = api.write(caller, move |config, json| share(config, json, &domain, Value::Null)).await?;
    Ok(api.read(&written.applied.snapshot, StatusCode::NO_CONTENT))
}

/// Returns the current shares of the tags beside the enabled tag, including the share of a rollout.
fn shares(host: &VirtualHost) -> Vec<Share> {
    let share = |(tag, percent): (&String, Percent)| Share { tag: tag.clone(), percent };
    let rolled_out = host.rollout.iter().filter_map(|rollout| Some((&rollout.to, rollout.share()?)));
    host.split.iter().map(|share| (&share.tag, share.percent)).chain(rolled_out).map(share).collect()
}

fn share(config: &Config, json: &mut Value, domain: &str, shares: Value) -> Result<Edited, Problem> {
    let (index, host) = find(config, domain)?;
    is_not_rolled_out(host)?;
    let edited = merge(json, "virtual_hosts", index, only("split", shares));
    Ok(Edited { at: format!("{}/split", edited.at), ..edited })
}

/// Returns a domain and its index in the configuration.
pub(super) fn find<'c>(config: &'c Config, domain: &str) -> Result<(usize, &'c VirtualHost), Problem> {
    let mut hosts = config.virtual_hosts.iter().enumerate();
    hosts.find(|(_, host)| is_same(&host.domain, domain)).ok_or_else(|| not_found(config, domain))
}

fn not_found(config: &Config, domain: &str) -> Problem {
    Problem::not_found_among("domain", domain, config.virtual_hosts.iter().map(|host| &*host.domain))
}

fn is_same(one: &str, other: &str) -> bool {
    one == other || matches!((one.parse::<Domain>(), other.parse()), (Ok(one), Ok(other)) if one == other)
}

/// Refuses a new target tag that no backend has, or that only drained backends have.
pub(super) fn is_served(config: &Config, tag: &str) -> Result<(), Problem> {
    let bearers = || config.backends.iter().filter(|backend| backend.tags.iter().any(|borne| borne == tag));
    if bearers().any(|backend| !backend.drained) {
        return Ok(());
    }
    Err(Problem::conflict(match bearers().next() {
        Some(drained) => format!(
            "every backend with the tag '{tag}' is drained, so its requests would be answered with 503; POST \
             /api/v1/backends/{}/undrain first",
            drained.id
        ),
        None => {
            let tags = config.backends.iter().flat_map(|backend| &backend.tags).map(String::as_str);
            format!("no backend has the tag '{tag}'{}", did_you_mean(tag, tags))
        }
    }))
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

fn shown(host: &VirtualHost) -> Value {
    // All keys are strings and JSON can represent all values, so this cannot fail.
    let mut json = serde_json::to_value(host).unwrap_or_default();
    hide_secrets(&mut json);
    json
}

/// Returns the response to a write: the domain in its new state.
fn answer(api: &Api, written: &Written, domain: &str) -> Answer {
    let host = find(&written.applied.snapshot.config, domain)?.1;
    Ok(api.written(written, "domains", domain, shown(host)))
}
