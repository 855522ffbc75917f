//! Retries: which requests are retried, how often, and at which cost.

use std::time::Instant;

use bytes::Bytes;
use http::Request;
use testkit::{Behaviour, Client, Origin};

use crate::support::{Gateway, Setup};

const ALONE: &str = "[health_check]\nenabled = false\n[circuit_breaker]\nenabled = false\n";

#[tokio::test]
async fn listed_status_is_retried_on_another_backend() {
    let (bad, good) = (Origin::start().await, Origin::start().await);
    let tables = format!("{ALONE}[retry]\non_status = [503]\n");
    let gateway = Gateway::start(&[&bad, &good], Setup { tables: &tables, ..Setup::default() }).await;
    bad.behave(Behaviour::Status(503));
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(bad.count("/"), 2, "half of them met it first");
    let statuses = [gateway.post("/", "x").await.status, gateway.post("/", "x").await.status];
    assert!(
        statuses.contains(&http::StatusCode::SERVICE_UNAVAILABLE),
        "a POST is not repeated: {statuses:?}"
    );
    bad.behave(Behaviour::Status(500));
    let statuses = [gateway.get("/").await.status.as_u16(), gateway.get("/").await.status.as_u16()];
    assert!(statuses.contains(&500), "another status is passed on: {statuses:?}");
    let put = |body: String| Request::put(gateway.url("/anything")).body(Bytes::from(body)).unwrap();
    bad.behave(Behaviour::Status(503));
    for _ in 0..2 {
        let answer = Client::new().send(put("abc".to_owned())).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["body"]),
            (200, &"abc".into()),
            "its body goes again"
        );
    }
    let large = "x".repeat(200_000);
    let answers = [Client::new().send(put(large.clone())).await, Client::new().send(put(large)).await];
    let statuses = answers.map(|answer| answer.status.as_u16());
    assert!(statuses.contains(&503), "a body that is not at hand any more cannot: {statuses:?}");
}

#[tokio::test]
async fn last_response_is_passed_on_when_all_attempts_fail() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let tables = format!("{ALONE}[retry]\nattempts = 5\non_status = [503]\nbackoff_base_ms = 1\n");
    let gateway = Gateway::start(&[&a, &b], Setup { tables: &tables, ..Setup::default() }).await;
    a.behave(Behaviour::Status(503));
    b.behave(Behaviour::Status(503));
    let answer = gateway.get("/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("proxy-status")),
        (503, ""),
        "the backend's own answer"
    );
    assert_eq!(a.count("/") + b.count("/"), 5);
    assert!(a.count("/").abs_diff(b.count("/")) <= 1, "never the same again while another is left");
}

#[tokio::test]
async fn an_outage_is_not_multiplied() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let tables = format!("{ALONE}[retry]\nattempts = 10\nbackoff_base_ms = 1\nbackoff_max_ms = 1\n");
    let gateway = Gateway::start(&[&a, &b], Setup { tables: &tables, ..Setup::default() }).await;
    for origin in [&a, &b] {
        origin.behave(Behaviour::Reset);
    }
    for _ in 0..100 {
        assert_eq!(gateway.get("/").await.status, 502);
    }
    let attempts = a.count("/") + b.count("/");
    assert!((110..=125).contains(&attempts), "100 requests, and a fifth or 10 more: {attempts}");
    let refused = gateway.metric("proxy_retries_refused_total{route=\"/\",vhost=\"*\"}").await;
    assert!(refused > 50.0, "{refused}");
}

#[tokio::test]
async fn pauses_grow_and_the_deadline_ends_them() {
    let origin = Origin::dead();
    let tables = format!(
        "{ALONE}[retry]\nattempts = 16\nbackoff_base_ms = 400\nbackoff_max_ms = 60000\nbudget_percent = 100\n"
    );
    let setup = Setup { proxy: "request_timeout_secs = 1", tables: &tables };
    let gateway = Gateway::start(&[&origin], setup).await;
    let started = Instant::now();
    let answer = gateway.get("/").await;
    let took = started.elapsed();
    assert_eq!(answer.status, 502, "{}", answer.text());
    // Sixteen attempts would take many minutes. The limit is generous, because the machine may be busy.
    assert!(took.as_secs_f64() < 4.0, "{took:?}");
    let attempts = gateway.metric("proxy_backend_connection_errors_total{backend=\"origin-0\"}").await;
    assert!((2.0..16.0).contains(&attempts), "{attempts}");
}
