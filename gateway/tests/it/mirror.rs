//! Mirroring and fault injection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use testkit::{Behaviour, Client, Origin, eventually};

use crate::support::{Gateway, Setup};

/// Starts a gateway over `origin` that mirrors to `shadow`, with additional keys of the route.
async fn start(origin: &Origin, shadow: &Origin, keys: &str) -> Gateway {
    let tables = format!(
        "[health_check]\nenabled = false\n[[virtual_hosts]]\ndomain = \"m\"\nenabled_backends_tag = \"all\"\n\
         [[virtual_hosts.routes]]\npath_prefix = \"/\"\n{keys}\n\
         [[backends]]\nid = \"shadow\"\naddress = \"{}\"\ntags = [\"shadow\"]\n",
        shadow.address()
    );
    Gateway::start(&[origin], Setup { tables: &tables, ..Setup::default() }).await
}

const MIRRORED: &str = "mirror_tag = \"shadow\"";

fn mirrored(result: &str) -> String {
    format!("proxy_mirrored_total{{result=\"{result}\",route=\"/\",vhost=\"m\"}}")
}

async fn send(gateway: &Gateway, method: &str, path: &str, body: &str) -> u16 {
    let request = Request::builder().method(method).uri(gateway.url(path)).header("Host", "m");
    Client::new().send(request.body(Bytes::from(body.to_owned())).unwrap()).await.status.as_u16()
}

#[tokio::test]
async fn idempotent_requests_are_copied_whole_and_others_are_not() {
    let (origin, shadow) = (Origin::start().await, Origin::start().await);
    let gateway = start(&origin, &shadow, MIRRORED).await;
    assert_eq!(send(&gateway, "GET", "/anything/a?b=c", "").await, 200);
    assert_eq!(send(&gateway, "PUT", "/anything/put", "body").await, 200);
    assert_eq!(send(&gateway, "POST", "/anything/post", "body").await, 200);
    assert_eq!(send(&gateway, "PUT", "/anything/large", &"x".repeat(100_000)).await, 200);
    eventually!(gateway.metric(&mirrored("answered")).await == 2.0);
    assert_eq!(gateway.metric(&mirrored("dropped")).await, 1.0, "the large one");
    let mut copies = shadow.received();
    copies.sort_by_key(|copy| copy.uri.path().len());
    assert_eq!(copies.len(), 2);
    assert_eq!((copies[0].uri.to_string().as_str(), copies[0].header("host")), ("/anything/a?b=c", "m"));
    assert_eq!((copies[1].method.as_str(), &copies[1].body[..]), ("PUT", &b"body"[..]));
    let original = origin.received().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(
        copies[1].header("x-request-id"),
        original.header("x-request-id"),
        "it can be found by the same id"
    );
}

#[tokio::test]
async fn a_mirror_that_fails_or_stalls_is_no_matter() {
    let (origin, mut shadow) = (Origin::start().await, Origin::start().await);
    let gateway = start(&origin, &shadow, MIRRORED).await;
    shadow.behave(Behaviour::Stall);
    let started = Instant::now();
    for _ in 0..300 {
        assert_eq!(send(&gateway, "GET", "/", "").await, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(20), "nobody waits for it");
    assert_eq!(gateway.metric(&mirrored("dropped")).await, 44.0, "256 may be under way");
    assert_eq!(gateway.metric("proxy_backend_requests_active{backend=\"shadow\"}").await, 0.0, "no client's");
    shadow.die().await;
    eventually!(gateway.metric(&mirrored("failed")).await == 256.0);
    for _ in 0..10 {
        assert_eq!(send(&gateway, "GET", "/", "").await, 200);
    }
    assert_eq!(origin.count("/"), 310);
    let circuit = gateway.metric("proxy_circuit_state{backend=\"shadow\"}").await;
    assert_eq!(circuit, 0.0, "what copies fail with is no reason to keep clients away");
}

#[tokio::test]
async fn faults_happen_to_their_share_of_requests() {
    let (origin, shadow) = (Origin::start().await, Origin::start().await);
    let keys = "fault = { delay_ms = 300, delay_percent = 100, abort_status = 418, abort_percent = 50 }";
    let gateway = start(&origin, &shadow, keys).await;
    let started = Instant::now();
    let requests = (0..60).map(|_| send(&gateway, "GET", "/", ""));
    let statuses = futures::future::join_all(requests).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    let aborted = statuses.iter().filter(|status| **status == 418).count();
    assert!((10..=50).contains(&aborted), "half of 60, by chance: {aborted}");
    assert_eq!(origin.count("/"), 60 - aborted, "what was answered here has not reached it");
    let faults = |kind| format!("proxy_faults_injected_total{{kind=\"{kind}\",route=\"/\",vhost=\"m\"}}");
    assert_eq!(gateway.metric(&faults("delay")).await, 60.0);
    assert_eq!(gateway.metric(&faults("abort")).await, aborted as f64);
    let request = Request::get(gateway.url("/")).header("Host", "m").body(Bytes::new()).unwrap();
    let mut answer = Client::new().send(request.clone()).await;
    while answer.status == 200 {
        answer = Client::new().send(request.clone()).await;
    }
    assert_eq!(answer.json()["type"], "urn:problem-type:gateway:fault_injected");
}
