//! Endpoints for the whole configuration: show it, replace it, reload it, roll it back.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{Caller, Json};
use super::edit::Edited;
use super::problem::Problem;
use super::{Answer, Api, run};
use crate::config::{Config, hide_secrets, reveal_secrets};
use crate::live::{Applied, ChangeError, Revision};

/// Result of a change.
#[derive(Serialize, JsonSchema)]
pub(super) struct ChangeView {
    /// Number of the revision that runs now.
    revision: u64,
    /// True if the change was a dry run, so that it was only checked.
    dry_run: bool,
    /// Differences from the previous configuration, one a line.
    changes: Vec<String>,
    /// Keys whose new value takes effect only after a restart.
    after_restart: Vec<&'static str>,
}

/// A revision of the configuration that runs now or ran earlier.
#[derive(Serialize, JsonSchema)]
pub(super) struct RevisionView {
    /// Number of the revision.
    revision: u64,
    /// Time at which the revision started to run, in seconds since 1970.
    at: f64,
    /// Author of the change: an address, "file", "SIGHUP", "start" or a rollout.
    by: String,
    /// Differences from the previous revision, one a line.
    changes: Vec<String>,
    /// True if the revision runs now; false if it ran earlier.
    current: bool,
}

/// Shows the whole configuration
///
/// The result includes every default. Secrets are shown as `***`.
#[utoipa::path(get, path = "/api/v1/config", tag = "config",
    responses((status = 200, body = ref("#/components/schemas/Config"))))]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.store.load();
    let mut json = snapshot.config.to_json();
    hide_secrets(&mut json);
    api.read(&snapshot, axum::Json(json))
}

/// Replaces the whole configuration
///
/// A key that is left out gets its default. `***` means that the secret of the running configuration is kept.
#[utoipa::path(put, path = "/api/v1/config", tag = "config", params(("dry_run" = Option<bool>, Query)),
    request_body(content = ref("#/components/schemas/Config")),
    responses((status = 200, body = ref("#/components/schemas/ChangeView"))))]
pub(super) async fn replace(State(api): State<Arc<Api>>, caller: Caller, body: Json) -> Answer {
    let mut new = Value::Object(body.object()?);
    let dry_run = caller.options.dry_run;
    let edit = move |_: &Config, json: &mut Value| {
        reveal_secrets(&mut new, json);
        *json = new;
        Ok(Edited::default())
    };
    let written = api.write(caller, edit).await?;
    Ok(changed(&api, &written.applied, dry_run))
}

/// Reads the file again, and resolves the names of backends again
#[utoipa::path(post, path = "/api/v1/config/reload", tag = "config",
    responses((status = 200, body = ref("#/components/schemas/ChangeView")), (status = 422)))]
pub(super) async fn reload(State(api): State<Arc<Api>>, caller: Caller) -> Answer {
    let store = api.store.clone();
    let (applied, caller) = run(move || {
        let applied = store.reload(caller.change()).map_err(|error| match error {
            ChangeError::Invalid(error) => Problem::invalid_file(&error),
            error => Problem::of_other(&error),
        })?;
        Ok((applied, caller))
    })
    .await?;
    caller.log(&applied);
    Ok(changed(&api, &applied, false))
}

/// Lists the running revision and the revisions that a rollback can go back to, the newest first
#[utoipa::path(get, path = "/api/v1/config/history", tag = "config",
    responses((status = 200, body = ref("#/components/schemas/RevisionViewList"))))]
pub(super) async fn history(State(api): State<Arc<Api>>) -> Answer {
    let store = api.store.clone();
    // A change locks the history, so this call may have to wait for the change.
    let history = run(move || Ok(store.history())).await?;
    let snapshot = api.store.load();
    let view = |revision: &Arc<Revision>| RevisionView {
        revision: revision.number,
        at: revision.at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
        by: revision.by.clone(),
        changes: revision.changes.clone(),
        current: revision.number == snapshot.revision,
    };
    let views: Vec<RevisionView> = history.iter().rev().map(view).collect();
    Ok(api.read(&snapshot, axum::Json(views)))
}

/// Target of a rollback.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    /// Number of an earlier revision.
    revision: u64,
}

/// Goes back to an earlier configuration
#[utoipa::path(post, path = "/api/v1/config/rollback", tag = "config",
    request_body(content = ref("#/components/schemas/Rollback")),
    responses((status = 200, body = ref("#/components/schemas/ChangeView")), (status = 404)))]
pub(super) async fn roll_back(State(api): State<Arc<Api>>, caller: Caller, body: Json) -> Answer {
    let Rollback { revision } = body.read()?;
    let store = api.store.clone();
    let (applied, caller) = run(move || {
        let applied = store.roll_back(caller.change(), revision).map_err(|error| match error {
            ChangeError::Refused(oldest) => {
                let detail =
                    format!("revision {revision} is not in the history; the oldest one in it is {oldest}");
                Problem::new(StatusCode::NOT_FOUND, detail)
            }
            ChangeError::Invalid(error) => Problem::invalid_file(&error),
            error => Problem::of_other(&error),
        })?;
        Ok((applied, caller))
    })
    .await?;
    caller.log(&applied);
    Ok(changed(&api, &applied, false))
}

fn changed(api: &Api, applied: &Applied, dry_run: bool) -> Response {
    let now = api.store.load();
    let snapshot = if dry_run { &now } else { &applied.snapshot };
    let view = ChangeView {
        revision: snapshot.revision,
        dry_run,
        changes: applied.changes.clone(),
        after_restart: applied.after_restart.clone(),
    };
    api.read(snapshot, axum::Json(view))
}
