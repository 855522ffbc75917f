use serde_json::{Value, json};
use testkit::{Client, Origin, eventually};

use crate::support::{Gateway, two_tags};

async fn gateway() -> (Gateway, Origin, Origin) {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&two_tags(a.address(), b.address(), "")).await;
    (gateway, a, b)
}

async fn status(gateway: &Gateway, method: &str, path: &str, body: Option<Value>) -> u16 {
    gateway.api(method, path, body).await.status.as_u16()
}

/// Returns the label of the origin that serves `host`, or the status of a local reply.
async fn served_by(gateway: &Gateway, host: &str) -> String {
    let request = http::Request::get(gateway.url("/")).header("host", host).body(bytes::Bytes::new());
    let answer = Client::new().send(request.unwrap()).await;
    match answer.status.as_u16() {
        200 => answer.header("x-origin").to_owned(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn domains_come_change_and_go() {
    let (gateway, a, b) = gateway().await;
    let shop = json!({"domain": "shop.example", "enabled_backends_tag": "a", "http_to_https": false});
    assert_eq!(gateway.read("/domains").await, json!([shop]));
    assert_eq!(gateway.read("/domains/Shop.Example.").await, shop);

    let blog = json!({"domain": "*.blog.example", "enabled_backends_tag": "b"});
    let created = gateway.api("POST", "/domains", Some(blog.clone())).await;
    assert_eq!(
        (created.status.as_u16(), created.header("location")),
        (201, "/api/v1/domains/%2A%2Eblog%2Eexample")
    );
    assert_eq!(served_by(&gateway, "my.blog.example").await, b.label());
    let location = created.header("location").trim_start_matches("/api/v1").to_owned();
    assert_eq!(gateway.read(&location).await, created.json());
    assert_eq!(status(&gateway, "POST", "/domains", Some(blog)).await, 409);

    let changed = json!({"aliases": ["store.example"], "rate_limit": {"requests": 5}});
    let answer = gateway.api("PUT", "/domains/shop.example", Some(changed)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["enabled_backends_tag"], "a", "what is left out stays");
    assert_eq!(answer.json()["rate_limit"]["requests"], 5);
    assert_eq!(answer.json()["rate_limit"]["window_secs"], 60, "defaults are shown");
    assert_eq!(served_by(&gateway, "store.example").await, a.label());
    let removed = json!({"aliases": null});
    assert_eq!(gateway.api("PUT", "/domains/shop.example", Some(removed)).await.json().get("aliases"), None);

    let put = json!({"enabled_backends_tag": "b"});
    assert_eq!(status(&gateway, "PUT", "/domains/new.example", Some(put)).await, 201);
    assert_eq!(status(&gateway, "DELETE", "/domains/new.example", None).await, 204);
    assert_eq!(status(&gateway, "DELETE", "/domains/new.example", None).await, 404);
    assert_eq!(served_by(&gateway, "new.example").await, "404");
    assert_eq!(gateway.read("/domains").await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn backends_come_change_and_go() {
    let (gateway, a, b) = gateway().await;
    served_by(&gateway, "shop.example").await;
    let backend = gateway.read("/backends/web-a").await;
    assert_eq!((&backend["id"], &backend["tags"]), (&json!("web-a"), &json!(["a"])));
    assert_eq!(backend["status"]["condition"], "usable");
    assert_eq!(backend["status"]["requests_total"], 1);
    // The client has its response slightly before the gateway counts the request as finished.
    eventually!(gateway.read("/backends/web-a").await["status"]["requests_active"] == 0);

    let more = json!({"id": "web-c", "address": b.address().to_string(), "tags": ["a"]});
    let created = gateway.api("POST", "/backends", Some(more.clone())).await;
    assert_eq!((created.status.as_u16(), created.header("location")), (201, "/api/v1/backends/web%2Dc"));
    assert_eq!(status(&gateway, "POST", "/backends", Some(more)).await, 409);
    let both = [served_by(&gateway, "shop.example").await, served_by(&gateway, "shop.example").await];
    assert!(both.contains(&a.label()) && both.contains(&b.label()), "{both:?}");

    let moved = gateway.api("PUT", "/backends/web-c", Some(json!({"tags": ["b"]}))).await;
    assert_eq!((moved.status.as_u16(), &moved.json()["tags"]), (200, &json!(["b"])));
    let put = json!({"address": b.address().to_string(), "tags": ["b"]});
    assert_eq!(status(&gateway, "PUT", "/backends/web-d", Some(put)).await, 201);
    assert_eq!(status(&gateway, "DELETE", "/backends/web-d", None).await, 204);
    assert_eq!(status(&gateway, "GET", "/backends/web-d", None).await, 404);
}

#[tokio::test]
async fn the_last_backend_of_a_tag_in_use_stays_unless_forced() {
    let (gateway, a, _b) = gateway().await;
    let refused = gateway.api("DELETE", "/backends/web-a", None).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("the last backend with the tag 'a', which is in use"), "{refused:?}");
    assert_eq!(status(&gateway, "DELETE", "/backends/web-b", None).await, 204, "nobody uses its tag");
    assert_eq!(status(&gateway, "DELETE", "/backends/web-a?force=maybe", None).await, 400);
    assert_eq!(status(&gateway, "DELETE", "/backends/web-a?force=true", None).await, 204);
    assert_eq!(served_by(&gateway, "shop.example").await, "503");

    let gateway = gateway.killed_and_started_again().await;
    assert_eq!(served_by(&gateway, "shop.example").await, "503", "it is so after a restart");
    let back = json!({"id": "web-a", "address": a.address().to_string(), "tags": ["a"]});
    assert_eq!(status(&gateway, "POST", "/backends", Some(back)).await, 201);
    assert_eq!(served_by(&gateway, "shop.example").await, a.label());
    assert_eq!(gateway.read("/config").await.get("empty_tags"), None, "the tag may not be empty again");
}

#[tokio::test]
async fn a_drained_backend_gets_nothing_new_and_ends_what_it_has() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let config = two_tags(a.address(), b.address(), "").replace("tags = [\"b\"]", "tags = [\"a\"]");
    let gateway = Gateway::start_with_config(&config).await;
    let url = format!("http://{}/stream/10?interval_ms=100", gateway.address);
    let in_flight = || {
        let request =
            http::Request::get(&url).header("host", "shop.example").body(bytes::Bytes::new()).unwrap();
        tokio::spawn(async move { Client::new().send(request).await })
    };
    let (first, second) = (in_flight(), in_flight());
    eventually!(a.count("/stream/10") + b.count("/stream/10") == 2);
    let drained = gateway.api("POST", "/backends/web-a/drain", None).await;
    assert_eq!(drained.json()["status"]["condition"], "drained");
    assert_eq!(drained.json()["status"]["requests_active"], 1);
    for _ in 0..10 {
        assert_eq!(served_by(&gateway, "shop.example").await, b.label());
    }
    for answer in [first.await.unwrap(), second.await.unwrap()] {
        assert_eq!((answer.status.as_u16(), answer.text().lines().count()), (200, 10));
    }

    let gateway = gateway.killed_and_started_again().await;
    assert_eq!(
        gateway.read("/backends/web-a").await["status"]["condition"],
        "drained",
        "after a restart too"
    );
    assert_eq!(
        gateway.api("POST", "/backends/web-a/undrain", None).await.json()["status"]["condition"],
        "usable"
    );
    let both = [served_by(&gateway, "shop.example").await, served_by(&gateway, "shop.example").await];
    assert!(both.contains(&a.label()), "{both:?}");
}

#[tokio::test]
async fn write_with_outdated_revision_is_refused() {
    let (gateway, ..) = gateway().await;
    let read = gateway.api("GET", "/domains/shop.example", None).await;
    let etag = read.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.len() > 3, "{etag}");
    assert_eq!(gateway.api("GET", "/config", None).await.header("etag"), etag);
    let client = Client::new();
    let put = |etag: &str, tag: &str| {
        let mut request =
            gateway.api_request("POST", "/domains/shop.example/switch", json!({"new_tag": tag}).to_string());
        request.headers_mut().insert("if-match", etag.parse().unwrap());
        client.send(request)
    };
    let first = put(&etag, "b").await;
    assert_eq!(first.status, 200);
    assert_ne!(first.header("etag"), etag);
    let late = put(&etag, "a").await;
    assert_eq!(late.status, 412);
    assert!(late.text().contains("revision 2"), "{late:?}");
    assert_eq!(gateway.read("/domains/shop.example").await["enabled_backends_tag"], "b");
    assert_eq!(put(&format!("W/{}", first.header("etag")), "a").await.status, 412, "a weak tag is none");
    assert_eq!(put(&format!("\"x\", {}", first.header("etag")), "a").await.status, 200);
    assert_eq!(put("*", "b").await.status, 200);
    let mut reload = gateway.api_request("POST", "/config/reload", "");
    reload.headers_mut().insert("if-match", etag.parse().unwrap());
    assert_eq!(client.send(reload).await.status, 412);
}

#[tokio::test]
async fn the_configuration_is_replaced_whole_or_not_at_all() {
    let (gateway, _a, b) = gateway().await;
    let before = gateway.read("/config").await;
    let mut new = before.clone();
    new["virtual_hosts"][0]["enabled_backends_tag"] = json!("b");
    new["rate_limit"] = json!({"requests": 1000});
    new["proxy"]["threads"] = json!(3);
    let tried = gateway.api("PUT", "/config?dry_run=true", Some(new.clone())).await;
    assert_eq!(tried.status, 200, "{tried:?}");
    assert_eq!((&tried.json()["dry_run"], &tried.json()["revision"]), (&json!(true), &json!(1)));
    assert_eq!(gateway.read("/config").await, before);

    let done = gateway.api("PUT", "/config", Some(new)).await.json();
    assert_eq!(done["revision"], 2);
    assert_eq!(done["changes"], tried.json()["changes"]);
    assert_eq!(
        done["changes"],
        json!([
            "~ proxy threads: 0 -> 3",
            "+ rate_limit = {\"requests\":1000,\"window_secs\":60,\"key\":\"client_ip\",\"scope\":\"route\"}",
            "~ virtual host shop.example enabled_backends_tag: \"a\" -> \"b\"",
        ])
    );
    assert_eq!(done["after_restart"], json!(["proxy.threads"]));
    assert_eq!(served_by(&gateway, "shop.example").await, b.label());

    let mut wrong = gateway.read("/config").await;
    wrong["virtual_hosts"][0]["enabled_backends_tag"] = json!("c");
    wrong["backends"][1]["adress"] = json!("x");
    let refused = gateway.api("PUT", "/config", Some(wrong)).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["errors"][0]["pointer"], "/backends/1/adress", "{refused:?}");
    assert_eq!(served_by(&gateway, "shop.example").await, b.label());
    let own = gateway.read("/config").await;
    assert_eq!(gateway.api("PUT", "/config", Some(own)).await.json()["changes"], json!([]));
}

#[tokio::test]
async fn secrets_are_not_shown_and_not_lost() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let secret =
        "[virtual_hosts.headers]\nrequest_set = { \"Authorization\" = \"Bearer s3cret\", \"X-A\" = \"1\" }";
    let gateway = Gateway::start_with_config(&two_tags(a.address(), b.address(), secret)).await;
    let shown = gateway.api("GET", "/config", None).await;
    assert!(!shown.text().contains("s3cret") && shown.text().contains("***"), "{shown:?}");
    let mut config = shown.json();
    config["virtual_hosts"][0]["headers"]["request_set"]["x-a"] = json!("2");
    let changes = gateway.api("PUT", "/config", Some(config)).await;
    assert_eq!(changes.status, 200);
    served_by(&gateway, "shop.example").await;
    let received = a.received();
    assert_eq!((received[0].header("authorization"), received[0].header("x-a")), ("Bearer s3cret", "2"));
    let copy = json!({"domain": "copy.example", "enabled_backends_tag": "a",
        "headers": {"request_set": {"Authorization": "***"}}});
    let refused = gateway.api("POST", "/domains", Some(copy)).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["errors"][0]["pointer"], "/headers/request_set/Authorization");
    let gone = gateway.api("PUT", "/domains/shop.example", Some(json!({"headers": null}))).await;
    assert_eq!(gone.status, 200);
    let history = gateway.api("GET", "/config/history", None).await;
    assert!(!history.text().contains("s3cret"), "{history:?}");
}

#[tokio::test]
async fn earlier_configurations_can_be_gone_back_to() {
    let (gateway, a, b) = gateway().await;
    let switch =
        |tag: &str| gateway.api("POST", "/domains/shop.example/switch", Some(json!({"new_tag": tag})));
    switch("b").await;
    assert_eq!(served_by(&gateway, "shop.example").await, b.label());
    let history = gateway.read("/config/history").await;
    assert_eq!(history[0]["changes"][0], "~ virtual host shop.example enabled_backends_tag: \"a\" -> \"b\"");
    assert_eq!((&history[0]["revision"], &history[0]["current"]), (&json!(2), &json!(true)));
    assert_eq!((&history[1]["by"], &history[1]["current"]), (&json!("start"), &json!(false)));

    let back = gateway.api("POST", "/config/rollback", Some(json!({"revision": 1}))).await;
    assert_eq!((back.status.as_u16(), &back.json()["revision"]), (200, &json!(3)));
    assert_eq!(served_by(&gateway, "shop.example").await, a.label());
    let file = std::fs::read_to_string(gateway.file()).unwrap();
    assert_eq!(file, two_tags(a.address(), b.address(), ""), "the file is what it was, comments and all");
    let gone = gateway.api("POST", "/config/rollback", Some(json!({"revision": 99}))).await;
    assert_eq!(gone.status, 404);
    assert!(gone.text().contains("the oldest one in it is 1"), "{gone:?}");
}

#[tokio::test]
async fn explain_endpoint_describes_a_request() {
    let (gateway, a, ..) = gateway().await;
    let ask = json!({"method": "GET", "url": "http://shop.example/x", "headers": {"X-A": "1"}});
    let answer = gateway.api("POST", "/explain", Some(ask)).await.json();
    let twice = json!({"method": "GET", "url": "http://shop.example/x", "headers": {"X-A": ["1", "2"]}});
    assert_eq!(gateway.api("POST", "/explain", Some(twice)).await.status, 200);
    assert_eq!(
        (&answer["virtual_host"], &answer["route"]["next"]),
        (&json!("shop.example"), &json!("web-a"))
    );
    assert_eq!(answer["route"]["pools"][0]["backends"][0]["state"], "usable");
    assert_eq!(a.received().len(), 0, "nothing was sent");
    assert_eq!(gateway.read("/backends/web-a").await["status"]["requests_total"], 0);
}

#[tokio::test]
async fn recent_requests_have_their_timelines() {
    let (gateway, a, _b) = gateway().await;
    let request = http::Request::get(gateway.url("/anything?secret=1")).header("host", "shop.example");
    let answer = Client::new().send(request.body(bytes::Bytes::new()).unwrap()).await;
    let id = answer.header("x-request-id").to_owned();
    eventually!(gateway.api("GET", &format!("/requests/{id}"), None).await.status == 200);
    let found = gateway.read(&format!("/requests/{id}")).await;
    assert_eq!(
        (&found["path"], &found["status"], &found["backend"]),
        (&json!("/anything"), &json!(200), &json!("web-a"))
    );
    assert_eq!((&found["virtual_host"], &found["route"]), (&json!("shop.example"), &json!("/")));
    assert_eq!(found["tag"], "a");
    let phases: Vec<&str> =
        found["timeline"].as_array().unwrap().iter().map(|mark| mark["phase"].as_str().unwrap()).collect();
    let expected = [
        "request_filter",
        "upstream_peer",
        "connected_to_upstream",
        "request_body_filter",
        "response_filter",
        "logging",
    ];
    assert_eq!(phases, expected);
    assert_eq!(gateway.read("/requests").await[0]["request_id"], json!(id));
    assert_eq!(gateway.api("GET", "/requests/none", None).await.status, 404);
    assert_eq!(a.received().len(), 1);
}

#[tokio::test]
async fn api_is_described_by_openapi_and_counted() {
    let (gateway, ..) = gateway().await;
    let document = gateway.read("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let schemas = &document["components"]["schemas"];
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name} is named and not there");
    }
    assert_eq!(gateway.api("GET", "/health", None).await.text(), "OK");
    let series = "api_requests_total{method=\"GET\",path=\"/api/v1/domains/{domain}\",status=\"404\"}";
    assert_eq!(status(&gateway, "GET", "/domains/none.example", None).await, 404);
    assert_eq!(gateway.metric(series).await, 1.0);
    let metrics = gateway.api("GET", "/metrics", None).await;
    assert!(metrics.header("content-type").starts_with("text/plain"), "{metrics:?}");
    assert!(metrics.text().contains("api_latency_seconds_bucket"));
    let page = Client::new().get(format!("http://{}/", gateway.management)).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
}

#[tokio::test]
async fn a_token_is_asked_for_where_there_is_one() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let file = crate::support::ConfigFile::new(&two_tags(a.address(), b.address(), ""));
    let gateway = Gateway::start_from(file, &[("GATEWAY_ADMIN_TOKEN", "s3cret")]).await;
    let client = Client::new();
    let ask = |method: &str, path: &str, fields: &[(&'static str, &'static str)]| {
        let mut request = gateway.api_request(method, path, "");
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        client.send(request)
    };
    let refused = ask("GET", "/config", &[]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("www-authenticate")),
        (401, "Bearer realm=\"gateway\"")
    );
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(ask("DELETE", "/domains/shop.example", &[("authorization", "Bearer no")]).await.status, 401);
    assert_eq!(ask("GET", "/nowhere", &[]).await.status, 401, "nobody learns what there is");
    assert_eq!(ask("GET", "/health", &[]).await.status, 200);
    let bearing = [("authorization", "Bearer s3cret"), ("host", "gateway.example")];
    assert_eq!(ask("GET", "/config", &bearing).await.status, 200, "by any name");
    let page = client.get(format!("http://{}/", gateway.management)).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (401, "text/html; charset=utf-8"));
    assert!(!gateway.process.output().contains("s3cret"));
}

#[tokio::test]
async fn foreign_host_or_origin_without_token_gets_403() {
    let (gateway, ..) = gateway().await;
    let client = Client::new();
    for (name, value, status) in [
        ("host", "evil.example", 403),
        ("host", "localhost:1", 200),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
    ] {
        let mut request = gateway.api_request("POST", "/config/reload", "");
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = client.send(request).await;
        assert_eq!(answer.status, status, "{name}: {value}: {answer:?}");
    }
}

/// Silent connections must not block the traffic or the management API.
#[tokio::test]
async fn silent_connections_do_not_block_traffic_or_api() {
    let (gateway, ..) = gateway().await;
    let mut silent = Vec::new();
    for _ in 0..120 {
        silent.push(tokio::net::TcpStream::connect(gateway.management).await.unwrap());
    }
    assert_eq!(status(&gateway, "GET", "/health", None).await, 200);
    assert_ne!(served_by(&gateway, "shop.example").await, "503");
}

/// Method, path, body, expected status, and expected text in the response. A body that begins with a letter is
/// sent unchanged, with a content type for that letter: `t` is text/plain.
const MALFORMED: &[(&str, &str, &str, u16, &str)] = &[
    ("POST", "/domains", "", 400, "the body is not valid JSON: EOF"),
    ("POST", "/domains", "{", 400, "not valid JSON"),
    ("POST", "/domains", "{\"domain\": \"x\",}", 400, "not valid JSON: trailing comma"),
    ("POST", "/domains", "{} {}", 400, "not valid JSON: trailing characters"),
    ("POST", "/domains", "t{}", 415, "expected Content-Type: application/json, found 'text/plain'"),
    ("POST", "/domains", "[]", 422, "expected an object, found an array"),
    ("POST", "/domains", "null", 422, "expected an object, found null"),
    ("POST", "/domains", "\"x\"", 422, "expected an object, found a string"),
    ("POST", "/domains", "{}", 422, "a virtual host needs a `domain`"),
    ("POST", "/domains", "{\"domain\": 7}", 422, "invalid type: integer `7`, expected a string"),
    ("POST", "/domains", "{\"domain\": \"new.example\"}", 422, "needs `enabled_backends_tag`"),
    (
        "POST",
        "/domains",
        "{\"domain\": \"new.example:80\", \"enabled_backends_tag\": \"a\"}",
        422,
        "is not a valid domain",
    ),
    (
        "POST",
        "/domains",
        "{\"domain\": \"new.example\", \"enabled_backends_tag\": \"c\"}",
        422,
        "no backend has the tag 'c'",
    ),
    (
        "POST",
        "/domains",
        "{\"domian\": \"new.example\"}",
        422,
        "unknown key `domian` (did you mean `domain`?)",
    ),
    (
        "POST",
        "/domains",
        "{\"domain\": \"new.example\", \"aliases\": [\"shop.example\"], \"enabled_backends_tag\": \"a\"}",
        422,
        "'shop.example' is defined twice",
    ),
    (
        "PUT",
        "/domains/shop.example",
        "{\"domain\": \"other.example\"}",
        422,
        "expected 'shop.example', as in the path",
    ),
    ("PUT", "/domains/shop.example", "{\"http_to_https\": \"no\"}", 422, "expected a boolean"),
    ("PUT", "/domains/shop.example", "{\"http_to_https\": true}", 422, "the gateway has no HTTPS listener"),
    ("PUT", "/domains/shop.example", "{\"auth\": {}}", 422, "kind = \"basic\" needs `users_file`"),
    ("PUT", "/domains/shop.example", "{\"routes\": {}}", 422, "`routes`: invalid type"),
    ("PUT", "/domains/shop.example", "{\"routes\": [{}]}", 422, "a route needs a condition"),
    (
        "PUT",
        "/domains/shop.example",
        "{\"routes\": [{\"path_regex\": \"[\"}]}",
        422,
        "is not a valid regular expression",
    ),
    (
        "PUT",
        "/domains/shop.example",
        "{\"rate_limit\": {\"requests\": 18446744073709551615}}",
        422,
        "`requests`: invalid",
    ),
    ("PUT", "/domains/shop.example", "{\"rate_limit\": {\"requests\": 1e400}}", 400, "number out of range"),
    ("PUT", "/domains/shop.example", "{\"rate_limit\": {\"window_secs\": 0}}", 422, "0 is out of range"),
    ("PUT", "/domains/a%20b", "{\"enabled_backends_tag\": \"a\"}", 422, "'a b' is not a valid domain"),
    ("PUT", "/domains/shop.example", "{\"a\\nb\": 1}", 422, "unknown key `a\\nb`"),
    ("DELETE", "/domains/shop.example", "", 422, "there is no virtual host, so nothing would be served"),
    ("POST", "/domains/shop.example/switch", "{}", 422, "missing field `new_tag`"),
    ("POST", "/domains/shop.example/switch", "{\"new_tag\": 1}", 422, "expected a string"),
    ("POST", "/domains/shop.example/switch", "{\"new_tag\": \"b\", \"x\": 1}", 422, "unknown field `x`"),
    ("POST", "/domains/shop.example/switch", "{\"new_tag\": \"c\"}", 409, "no backend has the tag 'c'"),
    (
        "POST",
        "/domains/none.example/switch",
        "{\"new_tag\": \"b\"}",
        404,
        "there is no domain 'none.example'",
    ),
    ("PUT", "/domains/shop.example/split", "{}", 422, "`split`: invalid type"),
    (
        "PUT",
        "/domains/shop.example/split",
        "[{\"tag\": \"b\", \"percent\": 101}]",
        422,
        "101 is out of range",
    ),
    ("PUT", "/domains/shop.example/split", "[{\"tag\": \"b\", \"percent\": -1}]", 422, "-1 is out of range"),
    (
        "PUT",
        "/domains/shop.example/split",
        "[{\"tag\": \"a\", \"percent\": 1}]",
        422,
        "'a' already has a share",
    ),
    ("PUT", "/domains/shop.example/split", "[{\"percent\": 1}]", 422, "a share needs a `tag`"),
    (
        "PUT",
        "/domains/shop.example/split",
        "[{\"tag\": \"c\", \"percent\": 1}]",
        422,
        "no backend has the tag 'c'",
    ),
    (
        "PUT",
        "/domains/shop.example",
        "{\"split\": [{\"tag\": \"b\", \"percent\": 60}, {\"tag\": \"web\", \"percent\": 60}]}",
        422,
        "the shares add up to 120 percent",
    ),
    (
        "POST",
        "/domains/shop.example/rollout",
        "{}",
        422,
        "a rollout needs `to`, the tag to which the requests move",
    ),
    ("POST", "/domains/shop.example/rollout", "{\"to\": \"a\"}", 422, "'a' already gets all requests"),
    ("POST", "/domains/shop.example/rollout", "{\"to\": \"c\"}", 409, "no backend has the tag 'c'"),
    (
        "POST",
        "/domains/shop.example/rollout",
        "{\"to\": \"b\", \"steps\": []}",
        422,
        "percentages that rise to 100",
    ),
    (
        "POST",
        "/domains/shop.example/rollout",
        "{\"to\": \"b\", \"steps\": [50, 10, 100]}",
        422,
        "percentages that rise to 100",
    ),
    (
        "POST",
        "/domains/shop.example/rollout",
        "{\"to\": \"b\", \"max_error_gap_percent\": -1}",
        422,
        "-1 is not a valid gap",
    ),
    (
        "POST",
        "/domains/shop.example/rollout",
        "{\"to\": \"b\", \"state\": \"done\"}",
        422,
        "only the gateway sets this key",
    ),
    ("POST", "/backends", "{}", 422, "a backend needs an `id`"),
    ("POST", "/backends", "{\"id\": \"x\", \"tags\": [\"a\"]}", 422, "needs an `address`"),
    (
        "POST",
        "/backends",
        "{\"id\": \"x\", \"address\": \"127.0.0.1\", \"tags\": [\"a\"]}",
        422,
        "there is no port",
    ),
    (
        "POST",
        "/backends",
        "{\"id\": \"x\", \"address\": \"nowhere.invalid:1\", \"tags\": [\"a\"]}",
        422,
        "cannot resolve 'nowhere.invalid:1'",
    ),
    (
        "POST",
        "/backends",
        "{\"id\": \"../x\", \"address\": \"127.0.0.1:1\", \"tags\": [\"a\"]}",
        422,
        "is not a valid id",
    ),
    ("PUT", "/backends/web-a", "{\"tags\": []}", 422, "a backend needs `tags`"),
    ("PUT", "/backends/web-a", "{\"TAGS\": [\"a\"]}", 422, "unknown key `TAGS`"),
    ("PUT", "/backends/web-a", "{\"tags\": [\"a\", \"a\"]}", 422, "a tag is listed twice"),
    ("GET", "/domains/%ff", "", 400, "the path is not percent-encoded UTF-8"),
    ("PUT", "/backends/web-a", "{\"tags\": [\"a\", 7]}", 422, "expected a string"),
    ("PUT", "/backends/web-a", "{\"tags\": [\"z\"]}", 422, "no backend has the tag 'a'"),
    ("PUT", "/backends/web-a", "{\"id\": \"web-z\"}", 422, "expected 'web-a', as in the path"),
    ("PUT", "/backends/web-a", "{\"weight\": 0}", 422, "weight"),
    ("PUT", "/config", "{}", 422, "there is no virtual host"),
    ("PUT", "/config", "{\"backends\": 3}", 422, "expected an array"),
    ("PUT", "/config?dry_run=perhaps", "{}", 400, "the query 'dry_run=perhaps' is not understood"),
    ("POST", "/config/reload?dry_run=true", "", 400, "`dry_run` is for PUT /api/v1/config"),
    ("PUT", "/config?dryrun=true", "{}", 400, "unknown parameter `dryrun` (did you mean `dry_run`?)"),
    ("POST", "/backends/web-a/undrain?force=true", "", 400, "`force` is for DELETE /api/v1/backends/{id}"),
    (
        "POST",
        "/backends",
        "{\"id\": \"..\", \"address\": \"127.0.0.1:1\", \"tags\": [\"a\"]}",
        422,
        "is not a valid id",
    ),
    ("POST", "/config/rollback", "{\"revision\": -1}", 422, "expected u64"),
    ("POST", "/config/rollback", "{\"revision\": 7}", 404, "revision 7 is not in the history"),
    (
        "POST",
        "/explain",
        "{\"method\": \"G ET\", \"url\": \"http://a/\"}",
        422,
        "'G ET' is not a valid method",
    ),
    ("POST", "/explain", "{\"method\": \"GET\", \"url\": \"/x\"}", 422, "there is no host"),
    (
        "POST",
        "/explain",
        "{\"method\": \"GET\", \"url\": \"http://a/\", \"headers\": {\"a b\": \"\"}}",
        422,
        "is not a valid name of a header field",
    ),
    ("GET", "/nowhere", "", 404, "there is nothing at this path"),
    ("PATCH", "/domains", "", 405, "this path does not support the method"),
];

#[tokio::test]
async fn each_malformed_request_has_its_own_clear_answer() {
    let (gateway, ..) = gateway().await;
    let client = Client::new();
    for (method, path, body, status, says) in MALFORMED {
        let text = body.strip_prefix('t');
        let mut request = gateway.api_request(method, path, text.unwrap_or(body).as_bytes());
        if text.is_some() {
            request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        }
        let answer = client.send(request).await;
        assert_eq!(answer.status, *status, "{method} {path} {body}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path} {body}");
        let problem = answer.json();
        let details =
            [&problem["detail"], &problem["errors"]].map(|part| part.to_string().replace("\\\"", "\""));
        assert!(
            details.iter().any(|part| part.contains(says)),
            "{method} {path} {body}\n-- says\n{problem}\n-- not\n{says}"
        );
        assert_eq!(problem["errors"].is_array(), *status == 422, "{problem}");
    }
    assert_eq!(gateway.read("/config/history").await.as_array().unwrap().len(), 1, "nothing was changed");
    let allow = client.send(gateway.api_request("PATCH", "/domains", "")).await;
    assert_eq!(allow.header("allow"), "GET,HEAD,POST");
    let huge = client.send(gateway.api_request("PUT", "/config", " ".repeat((1 << 20) + 1))).await;
    assert_eq!((huge.status.as_u16(), huge.header("content-type")), (413, "application/problem+json"));
    let nested = "[".repeat(10_000);
    assert_eq!(client.send(gateway.api_request("PUT", "/config", nested)).await.status, 400);
    let deep = format!("{{\"virtual_hosts\": {}{}}}", "[".repeat(100), "]".repeat(100));
    assert_eq!(client.send(gateway.api_request("PUT", "/config", deep)).await.status, 422);
}
