//! Tests of the fetches of a key set, with a real server whose keys change.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use testkit::eventually;

use super::*;
use crate::telemetry::Metrics;

const QUICK: Timing = Timing {
    refresh: Duration::from_secs(3600),
    floor: Duration::from_secs(3600),
    limit: Duration::from_secs(5),
    timeout: Duration::from_secs(5),
};

/// Server that publishes a key set and counts the requests for it.
struct Issuer {
    url: String,
    says: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<usize>>,
}

fn keys(ids: &[&str]) -> String {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = |id: &&str| json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": id });
    json!({ "keys": ids.iter().map(key).collect::<Vec<Value>>() }).to_string()
}

impl Issuer {
    async fn start(ids: &[&str]) -> Issuer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (says, asked) = (Arc::new(Mutex::new((200, keys(ids)))), Arc::new(Mutex::new(0)));
        let (answer, count) = (says.clone(), asked.clone());
        let app = Router::new().route(
            "/keys",
            get(move || async move {
                *count.lock() += 1;
                let (status, body) = answer.lock().clone();
                (StatusCode::from_u16(status).unwrap(), body)
            }),
        );
        tokio::spawn(async move { axum::serve(listener, app).await });
        Issuer { url, says, asked }
    }

    fn set(&self, timing: Timing) -> (Arc<KeySet>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let http = http_client::client(&[]).unwrap();
        let handles = metrics.auth.key_set(&self.url);
        let set = Arc::new(KeySet::new(&self.url, self.url.parse().unwrap(), http, timing, handles));
        tokio::spawn({
            let set = set.clone();
            async move { set.follow().await }
        });
        (set, metrics)
    }
}

async fn has(set: &KeySet, kid: &str) -> bool {
    set.keys_for(Some(kid)).await.is_some_and(|keys| keys.iter().any(|key| key.is_called(kid)))
}

#[tokio::test]
async fn a_request_waits_for_the_first_fetch() {
    let issuer = Issuer::start(&["a"]).await;
    let (set, metrics) = issuer.set(QUICK);
    assert!(has(&set, "a").await);
    let (text, _) = metrics.encode().unwrap();
    assert!(text.contains("result=\"fetched\"") && text.contains("proxy_jwks_fetched_timestamp_seconds"));
}

#[tokio::test]
async fn unknown_kid_causes_a_fetch_once_per_floor() {
    let issuer = Issuer::start(&["a"]).await;
    let (set, _) = issuer.set(QUICK);
    assert!(has(&set, "a").await);
    issuer.says.lock().1 = keys(&["a", "b"]);
    for kid in ["b", "' OR 1=1", "../../etc/passwd", ""] {
        assert!(!has(&set, kid).await, "within the floor nobody is asked");
    }
    assert_eq!(*issuer.asked.lock(), 1);

    let (set, _) = issuer.set(Timing { floor: Duration::ZERO, ..QUICK });
    assert!(has(&set, "a").await);
    issuer.says.lock().1 = keys(&["c"]);
    assert!(has(&set, "c").await && !has(&set, "a").await, "the issuer has taken it back");
}

#[tokio::test]
async fn hundred_waiting_requests_cause_one_fetch() {
    let issuer = Issuer::start(&["a"]).await;
    let (set, _) = issuer.set(QUICK);
    let all: Vec<_> = (0..100)
        .map(|_| {
            let set = set.clone();
            tokio::spawn(async move { has(&set, "a").await })
        })
        .collect();
    for one in all {
        assert!(one.await.unwrap());
    }
    assert_eq!(*issuer.asked.lock(), 1);
}

#[tokio::test]
async fn old_keys_stay_valid_while_fetches_fail() {
    let issuer = Issuer::start(&["a"]).await;
    let (set, metrics) =
        issuer.set(Timing { refresh: Duration::from_millis(10), floor: Duration::ZERO, ..QUICK });
    assert!(has(&set, "a").await);
    let failures = || {
        let (text, _) = metrics.encode().unwrap();
        let line = text.lines().find(|line| line.contains("result=\"failed\"")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(MAX_BYTES));
    for (status, body) in [(500, String::new()), (302, keys(&["evil"])), (200, "{}".to_owned()), (200, large)]
    {
        let before = failures();
        *issuer.says.lock() = (status, body);
        // Two more fetches are needed, because the first may have begun before the change.
        eventually!({
            set.wanted.notify_one();
            failures() >= before + 2.0
        });
        assert!(has(&set, "a").await, "{status}");
    }
    *issuer.says.lock() = (200, keys(&["b"]));
    eventually!(has(&set, "b").await);
}

#[tokio::test]
async fn request_without_keys_fails_after_the_first_fetch() {
    let issuer = Issuer::start(&["a"]).await;
    *issuer.says.lock() = (503, String::new());
    let (set, _) = issuer.set(QUICK);
    assert!(set.keys_for(Some("a")).await.is_none());
    // The last fetch was a moment ago, so the second call does not wait.
    assert!(set.keys_for(None).await.is_none());
}
