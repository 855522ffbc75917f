//! Requests that the management API refuses to protect the operator: removal of the last usable backend,
//! unknown query parameters, names that are typos. Also its OpenAPI description, which programs must be able to
//! read.

use serde_json::{Value, json};
use testkit::{Origin, Response, eventually};

use crate::support::{Gateway, two_tags};

async fn status(gateway: &Gateway, method: &str, path: &str, body: Option<Value>) -> u16 {
    gateway.api(method, path, body).await.status.as_u16()
}

/// Sends a request that must be refused with 409, and returns the detail of the response.
async fn refused(gateway: &Gateway, method: &str, path: &str, body: Option<Value>) -> String {
    let answer = gateway.api(method, path, body).await;
    assert_eq!(answer.status, 409, "{method} {path}: {answer:?}");
    answer.json()["detail"].as_str().unwrap().to_owned()
}

async fn served(gateway: &Gateway) -> Response {
    gateway.get_from("shop.example", "/").await
}

#[tokio::test]
async fn last_usable_backend_of_used_tag_stays_unless_forced() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let config =
        two_tags(a.address(), b.address(), "").replace("tags = [\"b\"]", "tags = [\"a\", \"spare\"]");
    let gateway = Gateway::start_with_config(&config).await;
    assert_eq!(status(&gateway, "POST", "/backends/web-a/drain", None).await, 200, "web-b is left");
    let drained = json!({"drained": true});
    for (method, path, body, verb) in [
        ("POST", "/backends/web-b/drain", None, "?force=true drains it anyway"),
        ("PUT", "/backends/web-b", Some(drained.clone()), "?force=true changes it"),
        ("PUT", "/backends/web-b", Some(json!({"tags": ["spare"]})), "?force=true changes it"),
        ("DELETE", "/backends/web-b", None, "?force=true removes it"),
    ] {
        let said = refused(&gateway, method, path, body).await;
        assert!(
            said.contains("'web-b' is the last usable backend with the tag 'a'")
                && said.contains("('web-a' is drained)")
                && said.contains(verb)
                && said.contains("503"),
            "{said}"
        );
    }
    assert_eq!(served(&gateway).await.status, 200);
    let weight = Some(json!({"weight": 7}));
    assert_eq!(status(&gateway, "PUT", "/backends/web-b", weight).await, 200, "it still gets requests");
    assert_eq!(status(&gateway, "POST", "/backends/web-a/drain", None).await, 200, "it is drained already");
    assert_eq!(status(&gateway, "PUT", "/backends/web-a", Some(drained.clone())).await, 200);
    assert_eq!(status(&gateway, "POST", "/backends/web-b/drain?force=maybe", None).await, 400);

    assert_eq!(status(&gateway, "POST", "/backends/web-b/drain?force=true", None).await, 200);
    assert_eq!(served(&gateway).await.status, 503);
    // Without a usable backend, the removal of one makes nothing worse.
    assert_eq!(status(&gateway, "DELETE", "/backends/web-a", None).await, 204);
    assert_eq!(status(&gateway, "POST", "/backends/web-b/undrain", None).await, 200);
    assert_eq!(served(&gateway).await.status, 200);
    let said = refused(&gateway, "POST", "/backends/web-b/drain", None).await;
    assert!(said.contains("'web-b' is the last backend with the tag 'a'"), "{said}");
    assert_eq!(status(&gateway, "PUT", "/backends/web-b?force=true", Some(drained)).await, 200);
    assert_eq!(served(&gateway).await.status, 503);
}

#[tokio::test]
async fn unhealthy_backend_does_not_count_as_remaining() {
    let (a, dead) = (Origin::start().await, Origin::dead());
    let probes = "[health_check]\nkind = \"tcp\"\ninterval_secs = 1\nunhealthy_threshold = 1\n";
    let config = two_tags(a.address(), dead.address(), "").replace("tags = [\"b\"]", "tags = [\"a\"]");
    let config = config.replace("[health_check]\nenabled = false\n", probes);
    let gateway = Gateway::start_with_config(&config).await;
    eventually!(gateway.read("/backends/web-b").await["status"]["condition"] == "unhealthy");
    let said = refused(&gateway, "POST", "/backends/web-a/drain", None).await;
    assert!(said.contains("('web-b' is unhealthy)"), "{said}");
    assert_eq!(status(&gateway, "POST", "/backends/web-b/drain", None).await, 200, "it gets none anyway");
    assert_eq!(served(&gateway).await.status, 200);
}

#[tokio::test]
async fn nothing_moves_to_a_tag_whose_backends_are_all_drained() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&two_tags(a.address(), b.address(), "")).await;
    assert_eq!(status(&gateway, "POST", "/backends/web-b/drain", None).await, 200, "nobody uses its tag");
    for (path, body) in [("switch", json!({"new_tag": "b"})), ("rollout", json!({"to": "b"}))] {
        let said = refused(&gateway, "POST", &format!("/domains/shop.example/{path}"), Some(body)).await;
        assert!(said.contains("POST /api/v1/backends/web-b/undrain first"), "{said}");
    }
    assert_eq!(status(&gateway, "POST", "/backends/web-b/undrain", None).await, 200);
    assert_eq!(
        status(&gateway, "POST", "/domains/shop.example/switch", Some(json!({"new_tag": "b"}))).await,
        200
    );
}

#[tokio::test]
async fn a_put_adds_with_201_and_tells_of_a_name_that_may_be_a_typo() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&two_tags(a.address(), b.address(), "")).await;
    for (path, body, kind, meant) in [
        ("/domains/shpo.example", json!({"http_to_https": false}), "domain 'shpo.example'", "shop.example"),
        ("/backends/wbe-a", json!({"weight": 2}), "backend 'wbe-a'", "web-a"),
    ] {
        let answer = gateway.api("PUT", path, Some(body)).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        let said = answer.json();
        let detail = said["detail"].as_str().unwrap();
        let expected = format!("there is no {kind} (did you mean `{meant}`?), so this would add it: ");
        assert!(detail.starts_with(&expected), "{detail}");
        assert!(said["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{said}");
        let missing = gateway.api("GET", path, None).await;
        assert_eq!(missing.status, 404);
        assert!(missing.text().contains(&format!("did you mean `{meant}`?")), "{missing:?}");
    }
    let domain = Some(json!({"enabled_backends_tag": "b"}));
    let added = gateway.api("PUT", "/domains/new.example", domain.clone()).await;
    assert_eq!((added.status.as_u16(), added.header("location")), (201, "/api/v1/domains/new%2Eexample"));
    assert_eq!(status(&gateway, "PUT", "/domains/new.example", domain).await, 200);
    let backend = Some(json!({"address": b.address().to_string(), "tags": ["b"]}));
    assert_eq!(status(&gateway, "PUT", "/backends/web-c", backend).await, 201);
    let said =
        refused(&gateway, "POST", "/domains/shop.example/switch", Some(json!({"new_tag": "bb"}))).await;
    assert!(said.contains("no backend has the tag 'bb'"), "{said}");
}

/// Returns every operation of the description: method, path with its parameters filled in, and definition.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path =
            path.replace("{domain}", "shop.example").replace("{id}", "web-a").replace("{request_id}", "none");
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

#[tokio::test]
async fn unknown_query_parameter_gets_400_and_changes_nothing() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&two_tags(a.address(), b.address(), "")).await;
    let operations = operations(&gateway.read("/openapi.json").await);
    assert!(operations.len() > 25, "{}", operations.len());
    for (method, path, operation) in &operations {
        let path = path.strip_prefix("/api/v1").unwrap();
        let answer = gateway.api(method, &format!("{path}?limits=5"), None).await;
        if path == "/health" {
            assert_eq!(answer.status, 200, "whatever a prober adds");
            continue;
        }
        assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
        assert!(answer.text().contains("unknown parameter `limits`"), "{method} {path}: {answer:?}");
        assert!(operation["responses"]["400"].is_object(), "{method} {path} does not say so");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let typo = format!("{path}?{}=true", name.replace('_', ""));
            let answer = gateway.api(method, &format!("{path}?{name}s=true"), None).await;
            assert!(
                answer.text().contains(&format!("did you mean `{name}`?")),
                "{method} {typo}: {answer:?}"
            );
            // The parameter must be accepted. The request may fail for another reason.
            let answer = gateway.api(method, &format!("{path}?{name}=false"), None).await;
            assert!(!answer.text().contains("is not understood"), "{method} {path}: {answer:?}");
        }
    }
    let answer = gateway.api("GET", "/openapi.json?x", None).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let answer = gateway.api("GET", "/backends?force=true", None).await;
    assert!(answer.text().contains("`force` is for DELETE /api/v1/backends/{id}, PUT"), "{answer:?}");
    assert_eq!(
        gateway.get_from("shop.example", "/?limits=5").await.status,
        200,
        "the traffic is none of its business"
    );
}

/// Collects every schema with a default, with its place in the document.
fn defaults<'d>(value: &'d Value, at: &str, found: &mut Vec<(String, &'d Value)>) {
    match value {
        Value::Object(table) => {
            if table.contains_key("default") && (table.contains_key("type") || table.contains_key("$ref")) {
                found.push((at.to_owned(), value));
            }
            table.iter().for_each(|(key, value)| defaults(value, &format!("{at}/{key}"), found));
        }
        Value::Array(items) => items.iter().for_each(|item| defaults(item, at, found)),
        _ => {}
    }
}

#[tokio::test]
async fn openapi_names_its_server_and_has_valid_defaults() {
    let (a, b) = (Origin::dead(), Origin::dead());
    let gateway = Gateway::start_with_config(&two_tags(a.address(), b.address(), "")).await;
    let document = gateway.read("/openapi.json").await;
    assert_eq!(document["servers"][0]["url"], "/");
    let mut found = Vec::new();
    defaults(&document, "", &mut found);
    assert!(found.len() > 100, "{}", found.len());
    for (at, schema) in found {
        let mut schema = schema.clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        assert!(validator.is_valid(&schema["default"]), "{at}: {} is none of its values", schema["default"]);
    }
    // Programs that generate code from the description name their functions after the operation ids.
    let operations = operations(&document);
    let mut ids: Vec<&Value> = operations.iter().map(|(_, _, operation)| &operation["operationId"]).collect();
    ids.sort_by_key(|id| id.to_string());
    ids.dedup();
    assert_eq!(ids.len(), operations.len());
}
