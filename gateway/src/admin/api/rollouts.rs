//! Endpoints for the guarded rollout of a domain: start the rollout, show it, end it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::body::{Caller, Json};
use super::domains::{find, is_not_rolled_out, is_served};
use super::edit::{Edited, merge, only};
use super::problem::Problem;
use super::{Answer, Api};
use crate::config::{Config, Percent, Rollout, RolloutState};
use crate::live::{Progress, Snapshot};

/// A rollout and its state.
#[derive(Serialize, JsonSchema)]
pub(super) struct RolloutView {
    /// Old tag of the rollout; absent when the rollout is done, because it can then no longer be aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Current share of the new tag.
    percent: Percent,
    /// Rollout as it was requested, with its current step.
    #[serde(flatten)]
    rollout: Rollout,
    /// Measurements of the current step; absent unless the rollout runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
}

/// Keys of a rollout that only the gateway writes.
const OURS: [&str; 3] = ["step", "state", "reason"];

/// Starts a guarded rollout
///
/// Moves the domain to another tag step by step. The gateway moves the domain back if the new tag does worse than the
/// old tag.
#[utoipa::path(post, path = "/api/v1/domains/{domain}/rollout", tag = "rollouts",
    params(("domain" = String, Path)), request_body(content = ref("#/components/schemas/Rollout")),
    responses((status = 201, body = ref("#/components/schemas/RolloutView")), (status = 404), (status = 409)))]
pub(super) async fn start(
    State(api): State<Arc<Api>>,
    Path(domain): Path<String>,
    caller: Caller,
    body: Json,
) -> Answer {
    let body = body.object()?;
    if let Some(ours) = OURS.iter().find(|key| body.contains_key(**key)) {
        return Err(Problem::invalid(format!("/{ours}"), "only the gateway sets this key"));
    }
    let wanted = domain.clone();
    let edit = move |config: &Config, json: &mut Value| {
        let (index, host) = find(config, &wanted)?;
        is_not_rolled_out(host)?;
        if !host.split.is_empty() {
            return Err(Problem::conflict("the domain has a split; remove it first"));
        }
        if let Some(to) = body.get("to").and_then(Value::as_str) {
            is_served(config, to)?;
        }
        let edited = merge(json, "virtual_hosts", index, only("rollout", Value::Object(body)));
        Ok(Edited { at: format!("{}/rollout", edited.at), created: true, not_found: None })
    };
    let written = api.write(caller, edit).await?;
    if let Ok((_, host)) = find(&written.applied.snapshot.config, &domain) {
        api.rollouts.begin(&host.domain);
    }
    let view = view(&api, &written.applied.snapshot, &domain)?;
    Ok(api.read(&written.applied.snapshot, (StatusCode::CREATED, axum::Json(view))))
}

/// Shows the progress or the result of a rollout
#[utoipa::path(get, path = "/api/v1/domains/{domain}/rollout", tag = "rollouts",
    params(("domain" = String, Path)),
    responses((status = 200, body = ref("#/components/schemas/RolloutView")), (status = 404)))]
pub(super) async fn show(State(api): State<Arc<Api>>, Path(domain): Path<String>) -> Answer {
    let snapshot = api.store.load();
    let view = view(&api, &snapshot, &domain)?;
    Ok(api.read(&snapshot, axum::Json(view)))
}

/// Ends a rollout
///
/// A running rollout is aborted, and all requests go to the old tag again. The record of a rollout that has
/// already ended is deleted.
#[utoipa::path(delete, path = "/api/v1/domains/{domain}/rollout", tag = "rollouts",
    params(("domain" = String, Path)), responses((status = 204), (status = 404)))]
pub(super) async fn abort(State(api): State<Arc<Api>>, Path(domain): Path<String>, caller: Caller) -> Answer {
    let who = caller.who.clone();
    let edit = move |config: &Config, json: &mut Value| {
        let (index, host) = find(config, &domain)?;
        let rollout = host.rollout.as_ref().ok_or_else(|| Problem::not_found("rollout of", &domain))?;
        let left = match rollout.state {
            RolloutState::Running => json!(Rollout {
                state: RolloutState::Aborted,
                reason: format!("ended by {who}"),
                ..rollout.clone()
            }),
            _ => Value::Null,
        };
        Ok(merge(json, "virtual_hosts", index, only("rollout", left)))
    };
    let written = api.write(caller, edit).await?;
    Ok(api.read(&written.applied.snapshot, StatusCode::NO_CONTENT))
}

fn view(api: &Api, snapshot: &Snapshot, domain: &str) -> Result<RolloutView, Problem> {
    let host = find(&snapshot.config, domain)?.1;
    let rollout = host.rollout.clone().ok_or_else(|| Problem::not_found("rollout of", domain))?;
    let is_done = rollout.state == RolloutState::Done;
    let ended = if is_done { Percent::ALL } else { Percent::default() };
    Ok(RolloutView {
        from: (!is_done).then(|| host.enabled_backends_tag.clone()),
        percent: rollout.share().unwrap_or(ended),
        progress: rollout.share().and_then(|_| api.rollouts.progress(&host.domain)),
        rollout,
    })
}
