use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use testkit::{Behaviour, Client, Origin, eventually};

use crate::support::{Gateway, Setup};

/// Configuration without health checks, so that only failed requests reveal a failure.
const NO_CHECKS: Setup<'_> =
    Setup { proxy: "", tables: "[health_check]\nenabled = false\n[circuit_breaker]\nenabled = false\n" };

#[tokio::test]
async fn a_backend_that_refuses_is_skipped_for_any_method() {
    let (mut a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start(&[&a, &b], NO_CHECKS).await;
    a.die().await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.status, 200);
        assert_eq!(gateway.post("/", "once").await.status, 200);
    }
    assert_eq!(b.count("/"), 20);
    assert!(gateway.metric("proxy_retries_total{route=\"/\",vhost=\"*\"}").await >= 5.0);
    assert!(gateway.metric("proxy_backend_connection_errors_total{backend=\"origin-0\"}").await >= 5.0);
}

#[tokio::test]
async fn a_get_that_was_reset_is_sent_to_another_and_a_post_is_not() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start(&[&a, &b], NO_CHECKS).await;
    a.behave(Behaviour::Reset);
    for _ in 0..4 {
        assert_eq!(gateway.get("/get").await.status, 404, "the other origin's answer");
    }
    assert_eq!(b.count("/get"), 4);

    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(gateway.post("/post", "once").await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [404, 404, 502, 502]);
    assert_eq!(a.count("/post") + b.count("/post"), 4, "no POST was sent twice");
}

#[tokio::test]
async fn attempts_bound_what_a_request_may_cost() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let tables = "[retry]\nattempts = 2\n[health_check]\nenabled = false\n";
    let gateway = Gateway::start(&[&a, &b, &c], Setup { tables, ..Setup::default() }).await;
    for origin in [&a, &b, &c] {
        origin.behave(Behaviour::Reset);
    }
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("proxy-status"), "gateway; error=connection_terminated");
    let counts = [a.count("/"), b.count("/"), c.count("/")];
    assert_eq!(counts.iter().sum::<usize>(), 2);
    assert!(counts.iter().all(|count| *count <= 1), "never the same again while another is left: {counts:?}");
}

#[tokio::test]
async fn virtual_host_without_retries_does_not_affect_others() {
    let (dead, alive) = (Origin::dead(), Origin::start().await);
    let tables = format!(
        "[health_check]\nenabled = false\n[[virtual_hosts]]\ndomain = \"once\"\nenabled_backends_tag = \"once\"\n\
         [virtual_hosts.retry]\nattempts = 1\n\
         [[backends]]\nid = \"dead\"\naddress = \"{}\"\ntags = [\"once\"]\n",
        dead.address()
    );
    let gateway = Gateway::start(&[&dead, &alive], Setup { tables: &tables, ..Setup::default() }).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let request = Request::get(gateway.url("/")).header("Host", "once").body(Bytes::new()).unwrap();
    assert_eq!(Client::new().send(request).await.status, 502);
}

#[tokio::test]
async fn killed_backend_loses_no_get_and_gets_traffic_again() {
    let (mut a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let tables = "[health_check]\ninterval_secs = 1\nunhealthy_threshold = 1\nhealthy_threshold = 1\n";
    let gateway = Gateway::start(&[&a, &b, &c], Setup { tables, ..Setup::default() }).await;
    let url = gateway.url("/");
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (url, stop, answered) = (url.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                let client = Client::new();
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::get(&url).body(Bytes::new()).map_err(|error| error.to_string())?;
                    match client.try_send(request).await {
                        Ok(answer) if answer.status == 200 => answered.fetch_add(1, Ordering::Relaxed),
                        Ok(answer) => return Err(format!("{} {}", answer.status, answer.text())),
                        Err(error) => return Err(error),
                    };
                }
                Ok(())
            })
        })
        .collect();
    for _ in 0..2 {
        let before = answered.load(Ordering::Relaxed);
        eventually!(answered.load(Ordering::Relaxed) > before + 200);
        a.die().await;
        eventually!(gateway.metric("health_check_status{backend=\"origin-0\"}").await == 0.0);
        a.forget();
        a.revive();
        eventually!(a.count("/") > 50, "traffic returns");
    }
    stop.store(true, Ordering::Relaxed);
    for worker in load {
        assert_eq!(worker.await.unwrap(), Ok(()));
    }
}
