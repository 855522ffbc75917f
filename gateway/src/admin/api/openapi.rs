//! OpenAPI description of the API. The paths come from the handlers (utoipa). The schemas come from the types that
//! endpoints read and write (schemars), including the types of the configuration.

use std::sync::Arc;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::ProblemBody;
use super::{Api, backends, certificates, configuration, domains, observe, rollouts};
use crate::config::{Backend, Config, Rollout, Share, VirtualHost};
use crate::live::Explanation;
use crate::telemetry::timeline::RecentRequest;

/// Title and general text of the description.
#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Gateway management API",
    description = "Changes a gateway while it serves. Every read returns the ETag of the configuration's \
         revision; a write whose If-Match is out of date gets 412."
))]
struct Description;

/// Returns a router with every path and its handler.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(observe::health))
        .routes(routes!(domains::list, domains::create))
        .routes(routes!(domains::show, domains::replace, domains::remove))
        .routes(routes!(domains::switch))
        .routes(routes!(domains::split, domains::set_split, domains::remove_split))
        .routes(routes!(rollouts::start, rollouts::show, rollouts::abort))
        .routes(routes!(backends::list, backends::create))
        .routes(routes!(backends::show, backends::replace, backends::remove))
        .routes(routes!(backends::drain))
        .routes(routes!(backends::undrain))
        .routes(routes!(configuration::show, configuration::replace))
        .routes(routes!(configuration::reload))
        .routes(routes!(configuration::history))
        .routes(routes!(configuration::roll_back))
        .routes(routes!(certificates::list))
        .routes(routes!(observe::explain))
        .routes(routes!(observe::requests))
        .routes(routes!(observe::request))
        .routes(routes!(observe::metrics))
}

/// Returns the description, completed with the schemas and with the responses that any path may give.
pub(super) fn complete(document: &OpenApi) -> Value {
    // Strings, numbers and maps can always be written as JSON.
    let mut json = serde_json::to_value(document).unwrap_or_default();
    json["components"] = json!({
        "schemas": schemas(),
        "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
    });
    json["security"] = json!([{ "token": [] }, {}]);
    // The URL is relative to the address of the description. Behind a proxy or a forwarded port, the gateway
    // does not know its own address.
    json["servers"] = json!([{ "url": "/", "description": "The gateway that this description comes from" }]);
    let paths = json.get_mut("paths").and_then(Value::as_object_mut);
    for item in paths.into_iter().flat_map(|paths| paths.values_mut()) {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            add_answers(method, operation);
        }
    }
    json
}

fn add_answers(method: &str, operation: &mut Value) {
    // A handler's name is only a verb, so the tag, which is its object, is added to make the id unique.
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    operation["operationId"] = json!(text(&operation["operationId"]) + "_" + &text(&operation["tags"][0]));
    let is_open = operation.get("security").is_some();
    let has_body = operation.get("requestBody").is_some();
    let writes = operation["tags"][0] != "observe" && method != "get";
    let mut statuses = vec![];
    if !is_open {
        // 400: unknown query parameter. 401 and 403: no token, or the wrong one.
        statuses.extend(["400", "401", "403"]);
    }
    if has_body {
        operation["requestBody"]["required"] = json!(true);
        statuses.extend(["400", "408", "413", "415", "422"]);
    }
    if writes {
        statuses.extend(["400", "409", "412", "422", "500"]);
        let if_match = json!({
            "name": "If-Match", "in": "header", "required": false, "schema": { "type": "string" },
            "description": "The ETag that must be current",
        });
        match operation.get_mut("parameters").and_then(Value::as_array_mut) {
            Some(parameters) => parameters.push(if_match),
            None => operation["parameters"] = json!([if_match]),
        }
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for status in statuses {
        responses.entry(status).or_insert(json!({}));
    }
    for (status, response) in responses {
        let title = axum::http::StatusCode::from_bytes(status.as_bytes()).ok();
        response["description"] = json!(title.and_then(|title| title.canonical_reason()).unwrap_or_default());
        if !status.starts_with('2') {
            let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
            response["content"] = json!({ "application/problem+json": problem });
        }
    }
}

/// Types of which an endpoint returns or accepts a list.
const LISTED: [&str; 5] = ["VirtualHost", "Share", "BackendView", "RevisionView", "RecentRequest"];

/// Returns every schema that the description refers to.
fn schemas() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12();
    let settings = settings.with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = SchemaGenerator::new(settings);
    generator.subschema_for::<Config>();
    generator.subschema_for::<VirtualHost>();
    generator.subschema_for::<Backend>();
    generator.subschema_for::<Share>();
    generator.subschema_for::<Rollout>();
    generator.subschema_for::<ProblemBody<'_>>();
    generator.subschema_for::<domains::Switch>();
    generator.subschema_for::<rollouts::RolloutView>();
    generator.subschema_for::<backends::BackendView>();
    generator.subschema_for::<configuration::ChangeView>();
    generator.subschema_for::<configuration::RevisionView>();
    generator.subschema_for::<configuration::Rollback>();
    generator.subschema_for::<certificates::CertificatesView>();
    generator.subschema_for::<observe::Ask>();
    generator.subschema_for::<Explanation>();
    generator.subschema_for::<RecentRequest>();
    let mut schemas = generator.take_definitions(true);
    for name in LISTED {
        let items = json!({ "$ref": format!("#/components/schemas/{name}") });
        schemas.insert(format!("{name}List"), json!({ "type": "array", "items": items }));
    }
    schemas
}
