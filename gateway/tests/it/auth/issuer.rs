//! Keys of a token issuer: fetched, replaced, and not available.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit::{Origin, eventually};

use super::tokens::{Signer, claims};
use super::{ISSUER, bearer, status};
use crate::support::{Gateway, Setup};

/// An issuer that publishes keys at `/keys`, and other keys at `/elsewhere`. It redirects to the latter if
/// `/keys` has none.
struct Issuer {
    url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    keys: Mutex<Option<Value>>,
    elsewhere: Mutex<Value>,
    asked: Mutex<usize>,
}

async fn keys(State(shared): State<Arc<Shared>>) -> (StatusCode, HeaderMap, String) {
    *shared.asked.lock() += 1;
    match &*shared.keys.lock() {
        Some(keys) => (StatusCode::OK, HeaderMap::new(), keys.to_string()),
        None => {
            let away = HeaderMap::from_iter([(header::LOCATION, "/elsewhere".parse().unwrap())]);
            (StatusCode::FOUND, away, String::new())
        }
    }
}

impl Issuer {
    async fn start(keys_at_first: Option<Value>) -> Issuer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { keys: Mutex::new(keys_at_first), ..Shared::default() });
        let elsewhere =
            |State(shared): State<Arc<Shared>>| async move { shared.elsewhere.lock().to_string() };
        let app = Router::new().route("/keys", get(keys)).route("/elsewhere", get(elsewhere));
        let app = app.with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Issuer { url, shared }
    }

    fn publish(&self, keys: Option<Value>) {
        *self.shared.keys.lock() = keys;
    }
}

fn set(keys: &[(&Signer, &str)]) -> Option<Value> {
    Some(json!({ "keys": keys.iter().map(|(signer, kid)| signer.jwk(kid)).collect::<Vec<_>>() }))
}

fn token(signer: &Signer, kid: &str) -> String {
    signer.token(&json!({ "alg": "RS256", "kid": kid }), &claims(json!({ "aud": null })))
}

async fn start(origin: &Origin, issuer: &Issuer, more: &str) -> Gateway {
    let tables = format!(
        "[health_check]\nenabled = false\n[auth]\nkind = \"jwt\"\njwks_url = \"{}/keys?client=secret\"\n\
         issuer = \"{ISSUER}\"\n{more}",
        issuer.url
    );
    Gateway::start(&[origin], Setup { tables: &tables, ..Setup::default() }).await
}

async fn ask(gateway: &Gateway, token: &str) -> u16 {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n", bearer(token));
    status(&testkit::exchange(gateway.address, head.as_bytes()).await)
}

#[tokio::test]
async fn keys_are_fetched_replaced_and_taken_back() {
    let (first, second) = (Signer::new(), Signer::new());
    let (origin, issuer) = (Origin::start().await, Issuer::start(set(&[(&first, "1")])).await);
    let gateway = start(&origin, &issuer, "jwks_refresh_secs = 1\n").await;
    assert_eq!(ask(&gateway, &token(&first, "1")).await, 200);
    assert_eq!(ask(&gateway, &token(&second, "1")).await, 401, "another's key by the same name");
    assert_eq!(ask(&gateway, &token(&second, "2")).await, 401);
    issuer.publish(set(&[(&first, "1"), (&second, "2")]));
    eventually!(ask(&gateway, &token(&second, "2")).await == 200);
    assert_eq!(ask(&gateway, &token(&first, "1")).await, 200);
    issuer.publish(set(&[(&second, "2")]));
    eventually!(ask(&gateway, &token(&first, "1")).await == 401);
    // `/keys` redirects to other keys, which must not be trusted.
    *issuer.shared.elsewhere.lock() = set(&[(&first, "1")]).unwrap();
    issuer.publish(None);
    let failed = format!("proxy_jwks_fetches_total{{result=\"failed\",url=\"{}/keys\"}}", issuer.url);
    eventually!(gateway.metric(&failed).await > 0.0);
    assert_eq!(ask(&gateway, &token(&second, "2")).await, 200, "the old keys go on");
    assert_eq!(ask(&gateway, &token(&first, "1")).await, 503, "nobody can tell whether it is a new one");
    // An invalid key must be ignored, and a set with only invalid keys must not replace the valid ones.
    *issuer.shared.elsewhere.lock() = Value::Null;
    issuer.publish(Some(json!({ "keys": [{ "kty": "RSA", "kid": "2", "n": "AQAB", "e": "AQAB" }] })));
    assert_eq!(ask(&gateway, &token(&second, "2")).await, 200);
    issuer.publish(Some(json!({ "keys": [] })));
    eventually!(ask(&gateway, &token(&second, "2")).await == 401);
    gateway.process.line("an issuer has no keys any more").await;
    issuer.publish(set(&[(&second, "2")]));
    eventually!(ask(&gateway, &token(&second, "2")).await == 200);
    let fetched_at = format!("proxy_jwks_fetched_timestamp_seconds{{url=\"{}/keys\"}}", issuer.url);
    assert!(gateway.metric(&fetched_at).await > 1.0e9);
    assert!(!gateway.monitor("/metrics").await.text().contains("client=secret"));
}

#[tokio::test]
async fn unknown_key_ids_do_not_cause_key_fetches() {
    let signer = Signer::new();
    let (origin, issuer) = (Origin::start().await, Issuer::start(set(&[(&signer, "1")])).await);
    let gateway = start(&origin, &issuer, "").await;
    assert_eq!(ask(&gateway, &token(&signer, "1")).await, 200);
    for kid in ["2", "../1", "1'--", "", "\u{0}", "http://127.0.0.1:1/"] {
        assert_eq!(ask(&gateway, &token(&signer, kid)).await, 401, "{kid:?}");
    }
    assert_eq!((*issuer.shared.asked.lock(), origin.received().len()), (1, 1));
}

#[tokio::test]
async fn missing_issuer_keys_deny_access_with_retry_after() {
    let signer = Signer::new();
    let (origin, issuer) = (Origin::start().await, Issuer::start(None).await);
    let gateway = start(&origin, &issuer, "").await;
    let head =
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}Connection: close\r\n\r\n", bearer(&token(&signer, "1")));
    let answer = testkit::exchange(gateway.address, head.as_bytes()).await;
    assert_eq!((status(&answer), super::field(&answer, "retry-after")), (503, "2"), "{answer}");
    assert_eq!(origin.received().len(), 0);
    issuer.publish(set(&[(&signer, "1")]));
    eventually!(ask(&gateway, &token(&signer, "1")).await == 200);
}

#[tokio::test]
async fn keys_outlive_a_change_of_the_configuration() {
    let signer = Signer::new();
    let (origin, issuer) = (Origin::start().await, Issuer::start(set(&[(&signer, "1")])).await);
    let gateway = start(&origin, &issuer, "").await;
    assert_eq!(ask(&gateway, &token(&signer, "1")).await, 200);
    let text = std::fs::read_to_string(gateway.file()).unwrap();
    gateway.edit(&text.replace("[auth]\n", "[auth]\nrequire = { role = \"admin\" }\n"));
    eventually!(ask(&gateway, &token(&signer, "1")).await == 403);
    assert_eq!(*issuer.shared.asked.lock(), 1);
}
