//! Endpoints about health, requests and metrics. One endpoint explains a request, others show recent requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Deserialize;

use super::body::Json;
use super::problem::Problem;
use super::{Answer, Api};
use crate::live;

/// Reports that the process is alive
#[utoipa::path(get, path = "/api/v1/health", tag = "observe", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn health() -> &'static str {
    "OK"
}

/// A request to explain.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// Method of the request.
    method: String,
    /// URL of the request, with the host.
    url: String,
    /// Header fields. A field that occurs several times has an array of values.
    #[serde(default)]
    headers: BTreeMap<String, FieldValues>,
}

/// Value or values of a header field.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum FieldValues {
    One(String),
    Many(Vec<String>),
}

/// Explains what the gateway would do with a request
///
/// The request is neither sent nor counted.
#[utoipa::path(post, path = "/api/v1/explain", tag = "observe",
    request_body(content = ref("#/components/schemas/Ask")),
    responses((status = 200, body = ref("#/components/schemas/Explanation"))))]
pub(super) async fn explain(State(api): State<Arc<Api>>, body: Json) -> Answer {
    let ask: Ask = body.read()?;
    let no = |pointer: &'static str, what: &str, found: &str| {
        Problem::invalid(pointer, format!("'{found}' is not a valid {what}"))
    };
    let method: Method = ask.method.parse().map_err(|_| no("/method", "method", &ask.method))?;
    let url: Uri = ask.url.parse().map_err(|_| no("/url", "URL", &ask.url))?;
    let each = |(name, values): (String, FieldValues)| {
        let values = match values {
            FieldValues::One(value) => vec![value],
            FieldValues::Many(values) => values,
        };
        values.into_iter().map(move |value| (name.clone(), value))
    };
    let fields = ask.headers.into_iter().flat_map(each).map(|(name, value)| {
        let found: Result<HeaderName, _> = name.parse();
        let found = found.map_err(|_| no("/headers", "name of a header field", &name))?;
        let said: Result<HeaderValue, _> = value.parse();
        let said = said.map_err(|_| no("/headers", "value of a header field", &value))?;
        Ok((found, said))
    });
    let fields = fields.collect::<Result<Vec<_>, Problem>>()?;
    let request = live::asked(&method, &url, fields).map_err(|error| Problem::invalid("/url", error))?;
    let snapshot = api.store.load();
    let explanation = live::explain(&snapshot, &request);
    Ok(api.read(&snapshot, axum::Json(explanation)))
}

/// Lists the recent requests, the newest first, each with the timeline of its phases
#[utoipa::path(get, path = "/api/v1/requests", tag = "observe",
    responses((status = 200, body = ref("#/components/schemas/RecentRequestList"))))]
pub(super) async fn requests(State(api): State<Arc<Api>>) -> Answer {
    Ok(api.read(&api.store.load(), axum::Json(api.timelines.recent())))
}

/// Shows one of the recent requests
#[utoipa::path(get, path = "/api/v1/requests/{request_id}", tag = "observe",
    params(("request_id" = String, Path)),
    responses((status = 200, body = ref("#/components/schemas/RecentRequest")), (status = 404)))]
pub(super) async fn request(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer {
    let found = api.timelines.find(&id).ok_or_else(|| Problem::not_found("recent request", &id))?;
    Ok(api.read(&api.store.load(), axum::Json(found)))
}

/// Returns all metrics in the text format of Prometheus
#[utoipa::path(get, path = "/api/v1/metrics", tag = "observe",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Answer {
    let (text, content_type) = api.metrics.encode().map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}"))
    })?;
    Ok(api.read(&api.store.load(), ([(header::CONTENT_TYPE, content_type)], text).into_response()))
}
