//! The circuit breaker, the limit of requests in flight, and their state in the status API.

use std::time::Duration;

use serde_json::json;
use testkit::{Behaviour, Origin, eventually};

use crate::support::{Gateway, Setup};

const QUICK: &str = "[health_check]\nenabled = false\n[retry]\nattempts = 1\n\
                     [circuit_breaker]\nconsecutive_failures = 3\nopen_secs = 1\nmax_open_secs = 1\n";
const STATE: &str = "proxy_circuit_state{backend=\"origin-0\"}";

#[tokio::test]
async fn failures_in_a_row_open_the_circuit_and_one_request_closes_it() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: QUICK, ..Setup::default() }).await;
    origin.behave(Behaviour::Status(500));
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await.status, 500, "its own answer");
    }
    let refused = gateway.get("/").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("proxy-status"), "gateway; error=destination_unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(origin.count("/"), 3, "an open circuit keeps requests away");
    assert_eq!(gateway.metric(STATE).await, 2.0);
    let view = gateway.read("/backends/origin-0").await;
    assert_eq!(
        (&view["status"]["breaker"], &view["status"]["condition"], &view["status"]["healthy"]),
        (&json!("open"), &json!("circuit_open"), &json!(true))
    );
    gateway.process.line("circuit opened: 3 failures in a row").await;

    // The trial request fails, and the circuit opens again.
    eventually!(gateway.get("/").await.status == 500);
    assert_eq!(origin.count("/"), 4);
    gateway.process.line("circuit opened again").await;
    assert_eq!(gateway.metric("proxy_circuit_opened_total{backend=\"origin-0\"}").await, 2.0);

    origin.behave(Behaviour::Answer);
    eventually!(gateway.get("/").await.status == 200);
    assert_eq!(gateway.metric(STATE).await, 0.0);
    gateway.process.line("circuit closed").await;
    assert_eq!(gateway.get("/").await.status, 200);
    let opened = gateway.process.output().matches("circuit opened:").count();
    assert_eq!(opened, 1, "one line a change");
}

#[tokio::test]
async fn half_open_circuit_sends_one_trial_request() {
    let (bad, good) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start(&[&bad, &good], Setup { tables: QUICK, ..Setup::default() }).await;
    bad.behave(Behaviour::Reset);
    eventually!({
        gateway.get("/").await;
        gateway.metric(STATE).await == 2.0
    });
    bad.behave(Behaviour::Stall);
    bad.forget();
    let url = gateway.url("/");
    let mut tries = Vec::new();
    eventually!({
        let url = url.clone();
        tries.push(tokio::spawn(async move { testkit::Client::new().get(url).await.status }));
        bad.count("/") == 1
    });
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(bad.count("/"), 1, "one request tries, not two");
    assert_eq!(gateway.metric(STATE).await, 1.0);
    let status = gateway.read("/backends/origin-0").await["status"].clone();
    assert_eq!(status["breaker"], "half_open", "{status}");
    tries.iter().for_each(|task| task.abort());
    // The trial request ends without a result, so another request may become the trial.
    eventually!(
        bad.count("/") >= 1 && {
            bad.behave(Behaviour::Answer);
            gateway.get("/").await;
            gateway.metric(STATE).await == 0.0
        }
    );
}

#[tokio::test]
async fn failure_percentage_opens_the_circuit_unless_disabled() {
    let origin = Origin::start().await;
    let tables = "[health_check]\nenabled = false\n\
                  [circuit_breaker]\nmin_requests = 10\nfailure_percent = 40\n\
                  [[virtual_hosts]]\ndomain = \"patient\"\nenabled_backends_tag = \"all\"\n\
                  [virtual_hosts.circuit_breaker]\nenabled = false\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    for i in 0..10 {
        let path = if i % 2 == 1 { "/status/500" } else { "/" };
        assert_ne!(gateway.get(path).await.status, 503, "{i}");
    }
    assert_eq!(gateway.get("/").await.status, 503);
    assert_eq!(gateway.get_from("patient", "/").await.status, 200, "it does not heed the circuit");
}

#[tokio::test]
async fn request_beyond_max_inflight_per_backend_gets_503() {
    let origin = Origin::start().await;
    let tables = "[health_check]\nenabled = false\n[upstream]\nmax_inflight_per_backend = 2\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    let url = gateway.url("/delay/1000");
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { testkit::Client::new().get(url).await.status })
        })
        .collect();
    eventually!(origin.count("/delay/1000") == 2);
    let refused = gateway.get("/").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("proxy-status"), "gateway; error=connection_limit_reached");
    assert_eq!(refused.json()["type"], "urn:problem-type:gateway:limit_reached");
    for task in busy {
        assert_eq!(task.await.unwrap(), 200);
    }
    eventually!(within Duration::from_secs(2), gateway.get("/").await.status == 200);
    assert_eq!(origin.count("/"), 1, "what was refused has not reached it");
}
