use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use serde_json::json;
use testkit::{Behaviour, Client, Origin, Response, eventually};

use crate::support::{Gateway, two_tags};

const SWITCH: &str = "/domains/shop.example/switch";
const SPLIT: &str = "/domains/shop.example/split";
const ROLLOUT: &str = "/domains/shop.example/rollout";

async fn gateway(more: &str) -> (Gateway, Origin, Origin) {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&two_tags(a.address(), b.address(), more)).await;
    (gateway, a, b)
}

fn ask(url: &str, cookie: Option<&str>) -> Request<Bytes> {
    let request = Request::get(url).header("host", "shop.example");
    let request = cookie.into_iter().fold(request, |request, cookie| request.header("cookie", cookie));
    request.body(Bytes::new()).unwrap()
}

/// Continuous requests until it is dropped.
struct Traffic {
    stop: Arc<AtomicBool>,
}

impl Traffic {
    fn start(url: String) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let (url, stop) = (url.clone(), stop.clone());
            tokio::spawn(async move {
                let client = Client::new();
                while !stop.load(Ordering::Relaxed) {
                    client.send(ask(&url, None)).await;
                }
            });
        }
        Traffic { stop }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_gets_the_old_tag_after_a_switch() {
    let (gateway, a, b) = gateway("").await;
    let labels = [a.label(), b.label()];
    // Number of switches requested, and number of switches answered.
    let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (url, labels) = (gateway.url("/"), labels.clone());
            let (asked, answered, done) = (asked.clone(), answered.clone(), done.clone());
            tokio::spawn(async move {
                let client = Client::new();
                let mut count = 0;
                while !done.load(Ordering::SeqCst) {
                    let before = answered.load(Ordering::SeqCst);
                    let answer = client.send(ask(&url, None)).await;
                    assert_eq!(answer.status, 200);
                    if asked.load(Ordering::SeqCst) == before {
                        assert_eq!(answer.header("x-origin"), labels[before % 2], "after {before} switches");
                        count += 1;
                    }
                }
                count
            })
        })
        .collect();
    for n in 1..=40 {
        asked.store(n, Ordering::SeqCst);
        let tag = ["a", "b"][n % 2];
        let answer = gateway.api("POST", SWITCH, Some(json!({"new_tag": tag}))).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["enabled_backends_tag"]), (200, &json!(tag)));
        answered.store(n, Ordering::SeqCst);
        assert_eq!(Client::new().send(ask(&gateway.url("/"), None)).await.header("x-origin"), labels[n % 2]);
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0, "each has seen a time without a switch under way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_hold_within_two_points() {
    let (gateway, a, b) = gateway("").await;
    let put = gateway.api("PUT", SPLIT, Some(json!([{"tag": "b", "percent": 10}]))).await;
    assert_eq!((put.status.as_u16(), put.json()), (200, json!([{"tag": "b", "percent": 10}])));
    assert_eq!(gateway.read(SPLIT).await, put.json());
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let url = gateway.url("/");
            tokio::spawn(async move {
                let client = Client::new();
                for _ in 0..1250 {
                    assert_eq!(client.send(ask(&url, None)).await.status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let (a, b) = (a.count("/"), b.count("/"));
    assert_eq!(a + b, 10_000);
    assert!((800..=1200).contains(&b), "{b} of 10 000");
    let series = "proxy_tag_responses_total{status=\"2xx\",tag=\"b\",vhost=\"shop.example\"}";
    assert_eq!(gateway.metric(series).await, b as f64);

    assert_eq!(gateway.api("DELETE", SPLIT, None).await.status, 204);
    assert_eq!(gateway.read(SPLIT).await, json!([]));
    assert!(!gateway.monitor("/metrics").await.text().contains("proxy_tag_responses_total{"));
}

fn cookie(answer: &Response) -> Option<String> {
    let set = answer.headers.get("set-cookie")?.to_str().ok()?;
    Some(set.split(';').next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_cookie_keeps_a_client_with_its_tag_also_when_shares_grow() {
    let split = "split_cookie = \"ab\"\n[[virtual_hosts.split]]\ntag = \"b\"\npercent = 30";
    let (gateway, _a, b) = gateway(split).await;
    let client = Client::new();
    let url = gateway.url("/");
    let mut known = Vec::new();
    for _ in 0..40 {
        let answer = client.send(ask(&url, None)).await;
        known.push((cookie(&answer).unwrap(), answer.header("x-origin").to_owned()));
    }
    let with_b = |known: &[(String, String)]| known.iter().filter(|(_, label)| *label == b.label()).count();
    assert!((8..=16).contains(&with_b(&known)), "{} of 40", with_b(&known));
    for (cookie, label) in &known {
        let again = client.send(ask(&url, Some(cookie))).await;
        assert_eq!((again.header("x-origin"), again.headers.get("set-cookie")), (label.as_str(), None));
    }
    gateway.api("PUT", SPLIT, Some(json!([{"tag": "b", "percent": 60}]))).await;
    let mut grown = Vec::new();
    for (cookie, label) in &known {
        let again = client.send(ask(&url, Some(cookie))).await.header("x-origin").to_owned();
        assert!(*label != b.label() || again == b.label(), "who had the growing share keeps it");
        grown.push((cookie.clone(), again));
    }
    assert!(with_b(&grown) > with_b(&known), "and others join");

    let forged = format!("{}0", known[0].0);
    assert!(cookie(&client.send(ask(&url, Some(&forged))).await).is_some(), "a forged one counts as none");
}

#[tokio::test]
async fn switch_removes_the_split() {
    let (gateway, a, b) = gateway("split = [{ tag = \"b\", percent = 50 }]").await;
    assert_eq!(gateway.api("POST", SWITCH, Some(json!({"new_tag": "b"}))).await.status, 200);
    for _ in 0..10 {
        Client::new().send(ask(&gateway.url("/"), None)).await;
    }
    assert_eq!((a.count("/"), b.count("/")), (0, 10));
}

#[tokio::test]
async fn a_rollout_goes_step_by_step_to_its_end() {
    let (gateway, _a, b) = gateway("").await;
    let _traffic = Traffic::start(gateway.url("/"));
    let wanted = json!({"to": "b", "steps": [20, 60, 100], "pause_secs": 1, "min_requests": 10,
        "max_latency_gap_percent": 1_000_000});
    let started = gateway.api("POST", ROLLOUT, Some(wanted)).await;
    assert_eq!(started.status, 201, "{started:?}");
    assert_eq!((&started.json()["from"], &started.json()["percent"]), (&json!("a"), &json!(20)));
    assert_eq!(gateway.read(SPLIT).await, json!([{"tag": "b", "percent": 20}]));
    for (method, path, body) in [
        ("POST", ROLLOUT, json!({"to": "b"})),
        ("POST", SWITCH, json!({"new_tag": "b"})),
        ("PUT", SPLIT, json!([])),
    ] {
        let refused = gateway.api(method, path, Some(body)).await;
        assert_eq!(refused.status, 409, "{method} {path}");
        assert!(refused.text().contains("a rollout to 'b' is under way"), "{refused:?}");
    }
    eventually!(gateway.read(ROLLOUT).await["progress"]["new"]["requests"].as_u64() > Some(0));
    eventually!(gateway.read(ROLLOUT).await["step"] == 1);
    eventually!(gateway.read(ROLLOUT).await["state"] == "done");
    let done = gateway.read(ROLLOUT).await;
    assert_eq!((&done["percent"], done.get("progress"), done.get("from")), (&json!(100), None, None));
    assert_eq!(gateway.read("/domains/shop.example").await["enabled_backends_tag"], "b");
    assert_eq!(Client::new().send(ask(&gateway.url("/"), None)).await.header("x-origin"), b.label());
    let history = gateway.read("/config/history").await;
    assert!(history.as_array().unwrap().iter().any(|revision| revision["by"] == "rollout of shop.example"));
    let text = std::fs::read_to_string(gateway.file()).unwrap();
    assert!(text.starts_with("# Ours.") && text.contains("state = \"done\""), "{text}");
}

#[tokio::test]
async fn failing_rollout_rolls_back_with_a_reason() {
    let (gateway, a, b) = gateway("").await;
    b.behave(Behaviour::Status(500));
    let _traffic = Traffic::start(gateway.url("/"));
    let wanted = json!({"to": "b", "steps": [50, 100], "pause_secs": 600, "min_requests": 10});
    assert_eq!(gateway.api("POST", ROLLOUT, Some(wanted)).await.status, 201);
    eventually!(gateway.read(ROLLOUT).await["state"] == "rolled_back", "long before its pause is over");
    let ended = gateway.read(ROLLOUT).await;
    let reason = ended["reason"].as_str().unwrap();
    assert!(reason.starts_with("with b, 100.0 % of ") && reason.contains("with a 0.0 % of "), "{reason}");
    assert_eq!(ended["percent"], 0);
    for _ in 0..10 {
        assert_eq!(Client::new().send(ask(&gateway.url("/"), None)).await.header("x-origin"), a.label());
    }
    let gateway = gateway.killed_and_started_again().await;
    assert_eq!(gateway.read(ROLLOUT).await["reason"], ended["reason"], "a restart does not forget it");
    assert_eq!(gateway.api("DELETE", ROLLOUT, None).await.status, 204);
    assert_eq!(gateway.api("GET", ROLLOUT, None).await.status, 404);
}

/// The rollback of a bad rollout must take effect even if it cannot be saved to the file.
#[tokio::test]
async fn rollout_rolls_back_even_if_the_file_cannot_be_written() {
    let (gateway, a, b) = gateway("").await;
    let wanted = json!({"to": "b", "steps": [50, 100], "pause_secs": 600, "min_requests": 10});
    assert_eq!(gateway.api("POST", ROLLOUT, Some(wanted)).await.status, 201);
    let broken = std::fs::read_to_string(gateway.file()).unwrap().replace("[proxy]", "[prxy]");
    gateway.edit(&broken);
    b.behave(Behaviour::Status(500));
    let _traffic = Traffic::start(gateway.url("/"));
    eventually!(gateway.read(ROLLOUT).await["state"] == "rolled_back");
    gateway.process.line("the change is not in the file, which was edited").await;
    assert_eq!(std::fs::read_to_string(gateway.file()).unwrap(), broken);
    // The operator who repairs the file does not know that the rollout has gone back.
    gateway.edit(&broken.replace("[prxy]", "[proxy]"));
    eventually!(std::fs::read_to_string(gateway.file()).unwrap().contains("state = \"rolled_back\""));
    assert_eq!(gateway.read(ROLLOUT).await["state"], "rolled_back");
    for _ in 0..10 {
        assert_eq!(Client::new().send(ask(&gateway.url("/"), None)).await.header("x-origin"), a.label());
    }
}

#[tokio::test]
async fn rollout_to_a_dead_backend_rolls_back() {
    let (a, b) = (Origin::start().await, Origin::dead());
    let gateway = Gateway::start_with_config(&two_tags(a.address(), b.address(), "")).await;
    let _traffic = Traffic::start(gateway.url("/"));
    let wanted = json!({"to": "b", "steps": [50, 100], "pause_secs": 600, "min_requests": 10});
    gateway.api("POST", ROLLOUT, Some(wanted)).await;
    eventually!(gateway.read(ROLLOUT).await["state"] == "rolled_back");
}

/// A change or a read of other parts must not reset the guard's measurements.
#[tokio::test]
async fn rollout_measurements_survive_other_changes() {
    let more = "[[virtual_hosts.routes]]\npath_prefix = \"/old\"";
    let (gateway, _a, b) = gateway(more).await;
    let wanted = json!({"to": "b", "steps": [50, 100], "pause_secs": 600, "min_requests": 15});
    assert_eq!(gateway.api("POST", ROLLOUT, Some(wanted)).await.status, 201);
    eventually!(gateway.read(ROLLOUT).await.get("progress").is_some());
    for _ in 0..8 {
        Client::new().send(ask(&gateway.url("/"), None)).await;
    }
    let mut config = gateway.read("/config").await;
    config["virtual_hosts"][0]["routes"] = json!([{"path_prefix": "/new"}, {"path_prefix": "/newer"}]);
    assert_eq!(gateway.api("PUT", "/config?dry_run=true", Some(config)).await.status, 200);
    let fewer = json!({"routes": null});
    assert_eq!(gateway.api("PUT", "/domains/shop.example", Some(fewer)).await.status, 200);
    b.behave(Behaviour::Status(500));
    for _ in 0..20 {
        Client::new().send(ask(&gateway.url("/"), None)).await;
    }
    eventually!(gateway.read(ROLLOUT).await["state"] == "rolled_back");
    let reason = gateway.read(ROLLOUT).await["reason"].to_string();
    assert!(reason.contains("with b, 66.7 % of 15 requests failed"), "{reason}");
}

/// Tests in the configuration must ignore the rollout. A test that passes only because of the rollout would
/// block its rollback.
#[tokio::test]
async fn configuration_tests_ignore_a_rollout() {
    let (gateway, ..) = gateway("").await;
    let wanted = json!({"to": "b", "steps": [50, 100], "pause_secs": 600});
    assert_eq!(gateway.api("POST", ROLLOUT, Some(wanted)).await.status, 201);
    let mut config = gateway.read("/config").await;
    for (tag, status) in [("b", 422), ("a", 200)] {
        config["tests"] = json!([{"request": "GET http://shop.example/", "expect": {"tag": tag}}]);
        assert_eq!(gateway.api("PUT", "/config", Some(config.clone())).await.status, status, "{tag}");
    }
    assert_eq!(gateway.api("DELETE", ROLLOUT, None).await.status, 204);
}

#[tokio::test]
async fn an_ended_rollout_holds_nothing_up() {
    let (gateway, ..) = gateway("").await;
    let wanted = json!({"to": "b", "steps": [50, 100], "pause_secs": 600});
    gateway.api("POST", ROLLOUT, Some(wanted)).await;
    gateway.api("DELETE", ROLLOUT, None).await;
    assert_eq!(gateway.api("DELETE", "/backends/web-b", None).await.status, 204);
    assert_eq!(gateway.api("POST", SWITCH, Some(json!({"new_tag": "a"}))).await.status, 200);
    assert_eq!(gateway.api("GET", ROLLOUT, None).await.status, 404, "a switch makes it the past");
}

#[tokio::test]
async fn configuration_rollback_does_not_restart_a_rollout() {
    let (gateway, ..) = gateway("").await;
    let wanted = json!({"to": "b", "steps": [50, 100], "pause_secs": 600});
    assert_eq!(gateway.api("POST", ROLLOUT, Some(wanted)).await.status, 201);
    assert_eq!(gateway.api("DELETE", ROLLOUT, None).await.status, 204);
    assert_eq!(gateway.api("POST", "/config/rollback", Some(json!({"revision": 2}))).await.status, 200);
    let rollout = gateway.read(ROLLOUT).await;
    assert_eq!(
        (&rollout["state"], &rollout["reason"]),
        (&json!("aborted"), &json!("rolled back to revision 2"))
    );
}

#[tokio::test]
async fn a_rollout_survives_a_restart_and_can_be_ended() {
    let (gateway, a, b) = gateway("").await;
    let wanted = json!({"to": "b", "steps": [50, 100], "pause_secs": 600, "min_requests": 1000});
    assert_eq!(gateway.api("POST", ROLLOUT, Some(wanted)).await.status, 201);
    let gateway = gateway.killed_and_started_again().await;
    let running = gateway.read(ROLLOUT).await;
    let state = [&running["percent"], &running["state"], &running["pause_secs"]];
    assert_eq!(state, [&json!(50), &json!("running"), &json!(600)]);
    for _ in 0..20 {
        Client::new().send(ask(&gateway.url("/"), None)).await;
    }
    assert_eq!((a.count("/"), b.count("/")), (10, 10));
    assert_eq!(gateway.api("DELETE", ROLLOUT, None).await.status, 204);
    let ended = gateway.read(ROLLOUT).await;
    assert_eq!(ended["state"], "aborted");
    assert!(ended["reason"].as_str().unwrap().starts_with("ended by "), "{ended}");
    for _ in 0..10 {
        Client::new().send(ask(&gateway.url("/"), None)).await;
    }
    assert_eq!((a.count("/"), b.count("/")), (20, 10));
}
