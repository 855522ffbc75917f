//! Rate limits, counted in the gateway and in a Redis that several gateways share.

mod redis;
mod shared;

use testkit::{Origin, exchange_from};

use crate::support::{Gateway, Setup, config};

const LIMIT: &str = "[rate_limit]\nrequests = 100\nwindow_secs = 60\n";

#[tokio::test]
async fn the_101st_request_of_a_client_is_refused_and_others_are_not() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: LIMIT, ..Setup::default() }).await;
    for n in 1..=100 {
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, 200, "request {n}");
        assert_eq!(answer.header("ratelimit-policy"), "\"default\";q=100;w=60");
        let expected = format!("\"default\";r={};t=", 100 - n);
        assert!(answer.header("ratelimit").starts_with(&expected), "{}", answer.header("ratelimit"));
    }
    for _ in 0..5 {
        let refused = gateway.get("/").await;
        assert_eq!(refused.status, 429);
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert!(refused.header("ratelimit").starts_with("\"default\";r=0;t="));
        let retry_after: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&retry_after), "{retry_after}");
    }
    assert_eq!(origin.count("/"), 100);

    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.address);
    let other = exchange_from("127.0.0.2".parse().unwrap(), gateway.address, request.as_bytes()).await;
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    assert_eq!(
        gateway.metric("proxy_rate_limited_total{policy=\"default\",route=\"/\",vhost=\"*\"}").await,
        5.0
    );
}

#[tokio::test]
async fn forged_forwarded_for_does_not_evade_the_rate_limit() {
    let origin = Origin::start().await;
    let tables = "[rate_limit]\nrequests = 2\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    let mut statuses = Vec::new();
    for n in 0..4 {
        let request = http::Request::get(gateway.url("/")).header("X-Forwarded-For", format!("192.0.2.{n}"));
        let answer = testkit::Client::new().send(request.body(bytes::Bytes::new()).unwrap()).await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}

/// Sends a GET of `/` with this header field.
async fn ask(gateway: &Gateway, field: (&str, &str)) -> testkit::Response {
    let request = http::Request::get(gateway.url("/")).header(field.0, field.1);
    testkit::Client::new().send(request.body(bytes::Bytes::new()).unwrap()).await
}

#[tokio::test]
async fn windows_by_field_or_cookie_fall_back_to_the_address() {
    let origin = Origin::start().await;
    let tables = "[[rate_limit]]\nname = \"key\"\nrequests = 2\nkey = \"header:X-Key\"\n\
                  [[rate_limit]]\nname = \"session\"\nrequests = 3\nkey = \"cookie:session\"\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    let mut statuses = Vec::new();
    for key in ["a", "a", "a", "b", "b"] {
        statuses.push(ask(&gateway, ("X-Key", key)).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 200, 429], "without a cookie three pass");
    assert_eq!(ask(&gateway, ("Cookie", "session=s")).await.status, 200, "with one it is another client");
    let refused = ask(&gateway, ("X-Key", "b")).await;
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["session"]));
    assert_eq!(refused.json()["type"], "urn:problem-type:gateway:rate_limited");
    assert_eq!(refused.json()["detail"], "3 requests in 60 s are used up");
    assert!(refused.header("ratelimit").starts_with("\"key\";r=1;t="), "not counted: {refused:?}");
}

#[tokio::test]
async fn an_empty_array_lifts_the_limit_of_the_level_above() {
    let origin = Origin::start().await;
    let tables = "[rate_limit]\nrequests = 1\n[[virtual_hosts]]\ndomain = \"free.example\"\n\
                  enabled_backends_tag = \"all\"\nrate_limit = []\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(gateway.get_from("free.example", "/").await.status.as_u16());
        statuses.push(gateway.get("/").await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 200, 429]);
}

#[tokio::test]
async fn eviction_from_a_full_table_is_counted_and_refuses_no_client() {
    let origin = Origin::start().await;
    let tables = "[rate_limit]\nrequests = 1\nkey = \"header:X-Key\"\n";
    let gateway = Gateway::start(&[&origin], Setup { proxy: "rate_limit_clients = 8", tables }).await;
    for n in 0..10 {
        assert_eq!(ask(&gateway, ("X-Key", &n.to_string())).await.status, 200);
    }
    assert_eq!(gateway.metric("proxy_rate_limit_evictions_total").await, 2.0);
    assert_eq!(ask(&gateway, ("X-Key", "9")).await.status, 429);
    // A new table size means a new table, so all counts are lost.
    let proxy = "rate_limit_clients = 80";
    gateway.edit(&config(&[origin.address()], Setup { proxy, tables }));
    testkit::eventually!(ask(&gateway, ("X-Key", "9")).await.status == 200);
}

#[tokio::test]
async fn the_management_api_changes_one_window_into_several() {
    let origin = Origin::start().await;
    let tables = "# The limit.\n[rate_limit]\nrequests = 9\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    let mut config = gateway.read("/config").await;
    assert_eq!(config["rate_limit"]["requests"], 9);
    config["rate_limit"] = serde_json::json!([
        {"name": "burst", "requests": 2, "window_secs": 1},
        {"name": "daily", "requests": 5, "window_secs": 86400},
    ]);
    let answer = gateway.api("PUT", "/config", Some(config)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(gateway.get("/").await.header("ratelimit-policy"), "\"burst\";q=2;w=1, \"daily\";q=5;w=86400");
    let text = std::fs::read_to_string(gateway.file()).unwrap();
    assert!(text.contains("[[rate_limit]]\nname = \"burst\"\n"), "{text}");
}

#[tokio::test]
async fn local_reply_has_the_ratelimit_field() {
    async fn old(gateway: &Gateway) -> testkit::Response {
        let request = http::Request::get(gateway.url("/old")).header("Host", "own.test");
        testkit::Client::new().send(request.body(bytes::Bytes::new()).unwrap()).await
    }
    let origin = Origin::start().await;
    let tables = "[rate_limit]\nrequests = 3\n[health_check]\nenabled = false\n\
        [[virtual_hosts]]\ndomain = \"own.test\"\nenabled_backends_tag = \"all\"\n\
        [[virtual_hosts.routes]]\npath = \"/old\"\nredirect = \"/new\"\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    for left in [2, 1, 0] {
        let answer = old(&gateway).await;
        assert_eq!(answer.status, 308);
        assert!(answer.header("ratelimit").starts_with(&format!("\"default\";r={left};t=")), "{answer:?}");
    }
    let answer = old(&gateway).await;
    assert_eq!((answer.status.as_u16(), answer.headers.get_all("ratelimit").iter().count()), (429, 1));
}
