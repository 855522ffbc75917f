//! Checks which requests are retried, and what the outcome of an attempt tells about a backend.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../../01_routes_over_pools/tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use ex0502::config::Config;
use ex0502::health::HealthChecker;
use ex0502::live::Live;
use ex0502::proxy::Gateway;
use http::Request;
use support::{PROXY, file};
use testkit::{Behaviour, Client, Fault, Faulty, Origin, ServedProxy, background, eventually, expect, serve};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Route from every path to the tag `all`.
const ALL: [(&str, &str); 1] = [("/", "all")];

/// Policy in which circuits never open, so that only retries matter.
const RETRIES: &str = "circuit_breaker_failures = 100000";
/// Policy in which requests are never retried, so that only circuits matter.
const CIRCUITS: &str = "retry_attempts = 1\ncircuit_breaker_failures = 3\ncircuit_breaker_open_secs = 1";

fn live(policy: &str, backends: &[SocketAddr]) -> Arc<Live> {
    let backends: Vec<_> = backends.iter().map(|address| ("all", *address)).collect();
    Arc::new(Live::new(Config::parse(&file(PROXY, policy, &ALL, &backends)).unwrap()))
}

fn gateway(policy: &str, origins: &[&Origin]) -> ServedProxy {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address()).collect();
    serve(Gateway::new(live(policy, &addresses)))
}

async fn send(proxy: &ServedProxy, method: &str, body: Vec<u8>) -> Result<u16, String> {
    let request = Request::builder().method(method).uri(proxy.url("/")).body(body.into());
    Client::new().try_send(request.unwrap()).await.map(|answer| answer.status.as_u16())
}

#[tokio::test]
async fn a_backend_that_refuses_is_skipped_for_any_method() {
    let (dead, alive) = (Origin::dead(), Origin::start().await);
    let proxy = gateway(RETRIES, &[&dead, &alive]);
    for method in ["GET", "POST", "GET", "POST"] {
        let status = send(&proxy, method, b"pay".to_vec()).await;
        expect!(status, Ok(200), "{method} / when one of two backends refuses connections");
    }
    expect!(alive.count("/"), 4, "how many of four requests the other backend got");
}

#[tokio::test]
async fn after_sending_only_whole_idempotent_requests_are_retried() {
    const BEYOND_THE_BUFFER: usize = 200_000;
    for (method, length, status) in [
        ("GET", 0, 200),
        ("PUT", 3, 200),
        ("POST", 3, 502),
        ("PATCH", 3, 502),
        ("PUT", BEYOND_THE_BUFFER, 502),
    ] {
        let (resets, alive) = (Origin::start().await, Origin::start().await);
        resets.behave(Behaviour::Reset);
        let proxy = gateway(RETRIES, &[&resets, &alive]);
        let what = format!("{method} / with a body of {length} bytes, after a reset by the first backend");
        expect!(send(&proxy, method, vec![b'x'; length]).await, Ok(status), "{what}");
        let counts = [resets.received().len(), alive.received().len()];
        expect!(counts, [1, usize::from(status == 200)], "requests at the two backends: {what}");
    }
}

#[tokio::test]
async fn a_response_that_has_begun_is_not_retried() {
    for fault in [Fault::ResetInBody, Fault::LengthTooLong] {
        let (breaks, alive) = (Faulty::start(fault).await, Origin::start().await);
        let proxy = serve(Gateway::new(live(RETRIES, &[breaks.address(), alive.address()])));
        let whole = send(&proxy, "GET", Vec::new()).await;
        expect!(whole.is_err(), true, "GET / fails when a response breaks off in its body ({fault:?})");
        expect!(alive.count("/"), 0, "requests at the other backend when a response breaks off ({fault:?})");
    }
}

#[tokio::test]
async fn attempts_of_a_request_are_bounded() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    for origin in [&a, &b, &c] {
        origin.behave(Behaviour::Reset);
    }
    for (attempts, counts) in [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])] {
        let proxy = gateway(&format!("retry_attempts = {attempts}"), &[&a, &b, &c]);
        expect!(send(&proxy, "GET", Vec::new()).await, Ok(502), "GET / when every backend resets it");
        let tried = [&a, &b, &c].map(|origin| origin.received().len());
        expect!(tried, counts, "attempts at each backend with retry_attempts = {attempts}");
        [&a, &b, &c].iter().for_each(|origin| origin.forget());
    }
}

#[tokio::test]
async fn a_retry_avoids_the_backend_that_failed() {
    let (resets, alive) = (Origin::start().await, Origin::start().await);
    resets.behave(Behaviour::Reset);
    let proxy = gateway(RETRIES, &[&resets, &alive]);
    for _ in 0..4 {
        expect!(send(&proxy, "GET", Vec::new()).await, Ok(200), "GET / when one of two backends resets it");
    }
    expect!([resets.count("/"), alive.count("/")], [2, 4], "attempts at both backends for four requests");
}

#[tokio::test]
async fn an_outage_is_not_multiplied() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let proxy = gateway(&format!("{RETRIES}\nretry_attempts = 10"), &[&a, &b]);
    for origin in [&a, &b] {
        origin.behave(Behaviour::Reset);
    }
    for _ in 0..100 {
        expect!(send(&proxy, "GET", Vec::new()).await, Ok(502), "GET / when every backend resets it");
    }
    let attempts = a.count("/") + b.count("/");
    let bounded = (110..=130).contains(&attempts);
    expect!(bounded, true, "100 failing requests make 110 to 130 attempts, and not {attempts}");
}

#[tokio::test]
async fn requests_that_may_not_be_retried_cost_no_retry() {
    let (resets, alive) = (Origin::start().await, Origin::start().await);
    resets.behave(Behaviour::Reset);
    let proxy = gateway(RETRIES, &[&resets, &alive]);
    for _ in 0..60 {
        let _ = send(&proxy, "POST", b"pay".to_vec()).await;
    }
    for _ in 0..10 {
        expect!(send(&proxy, "GET", Vec::new()).await, Ok(200), "GET / after many POST that failed");
    }
}

#[tokio::test]
async fn failures_in_a_row_open_the_circuit_until_a_trial_succeeds() {
    let origin = Origin::start().await;
    let proxy = gateway(CIRCUITS, &[&origin]);
    origin.behave(Behaviour::Status(500));
    for _ in 0..3 {
        expect!(send(&proxy, "GET", Vec::new()).await, Ok(500), "GET / while the circuit is closed");
    }
    expect!(send(&proxy, "GET", Vec::new()).await, Ok(503), "GET / after three failures in a row");
    expect!(origin.count("/"), 3, "how many requests the backend got before and after its circuit opened");
    expect!(eventually send(&proxy, "GET", Vec::new()).await, Ok(500), "the trial, after one second");
    expect!(send(&proxy, "GET", Vec::new()).await, Ok(503), "GET / after a trial that failed");
    origin.behave(Behaviour::Answer);
    expect!(eventually send(&proxy, "GET", Vec::new()).await, Ok(200), "the next trial");
    expect!(send(&proxy, "GET", Vec::new()).await, Ok(200), "GET / after a trial that succeeded");
}

#[tokio::test]
async fn successes_and_errors_of_requests_keep_the_circuit_closed() {
    let origin = Origin::start().await;
    let proxy = gateway(CIRCUITS, &[&origin]);
    for status in [404, 404, 404, 404, 500, 500, 304, 500, 500, 404, 500, 500] {
        origin.behave(Behaviour::Status(status));
        let what = "a response that must not be 503, because there were never three failures in a row";
        expect!(send(&proxy, "GET", Vec::new()).await, Ok(status), "{what}");
    }
}

#[tokio::test]
async fn connections_that_fail_open_the_circuit() {
    let (dead, resets) = (Origin::dead(), Origin::start().await);
    resets.behave(Behaviour::Reset);
    for (origin, what) in [(&dead, "connections that are refused"), (&resets, "connections that are reset")] {
        let proxy = gateway(CIRCUITS, &[origin]);
        for _ in 0..3 {
            expect!(send(&proxy, "GET", Vec::new()).await, Ok(502), "{what}, while the circuit is closed");
        }
        expect!(send(&proxy, "GET", Vec::new()).await, Ok(503), "GET / after three {what}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_no_failure_of_the_backend() {
    let origin = Origin::start().await;
    let proxy = gateway("circuit_breaker_failures = 1", &[&origin]);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let half = b"POST /anything HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf";
    client.write_all(half).await.unwrap();
    drop(client);
    for _ in 0..50 {
        expect!(
            send(&proxy, "GET", Vec::new()).await,
            Ok(200),
            "GET / after another client left in its request"
        );
    }
}

#[tokio::test]
async fn one_trial_at_a_time_and_one_without_outcome_blocks_nothing() {
    let (bad, good) = (Origin::start().await, Origin::start().await);
    let proxy = gateway(CIRCUITS, &[&bad, &good]);
    bad.behave(Behaviour::Status(500));
    for _ in 0..10 {
        let _ = send(&proxy, "GET", Vec::new()).await;
    }
    expect!(bad.count("/"), 3, "how many of ten requests a backend got whose circuit opened after three");
    bad.forget();
    bad.behave(Behaviour::Stall);
    let mut trials = Vec::new();
    let is_tried = |trials: &mut Vec<_>| {
        let url = proxy.url("/");
        trials.push(tokio::spawn(async move { Client::new().status(url).await }));
        bad.count("/") > 0
    };
    expect!(eventually is_tried(&mut trials), true, "after one second, a request is the trial");
    for _ in 0..20 {
        // A request that follows the trial to the backend that stalls gets no response: `None`.
        let status = send(&proxy, "GET", Vec::new()).await.ok();
        expect!(status, Some(200), "GET / while the trial is under way");
    }
    expect!(bad.count("/"), 1, "how many trials are under way at once");
    // The client of the trial leaves, so the trial has no outcome.
    trials.iter().for_each(|trial| trial.abort());
    bad.behave(Behaviour::Answer);
    let back = async || {
        let _ = send(&proxy, "GET", Vec::new()).await;
        bad.count("/") >= 3
    };
    expect!(eventually back().await, true, "the backend gets requests again");
}

#[tokio::test]
async fn a_backend_that_fails_its_probe_gets_no_requests() {
    let (mut a, b) = (Origin::start().await, Origin::start().await);
    let live = live("retry_attempts = 1\nhealth_check_interval_secs = 1", &[a.address(), b.address()]);
    a.die().await;
    let _checker = background(Arc::new(HealthChecker(live.clone())));
    let failing =
        || live.load().backends.iter().any(|one| one.is_failing.load(std::sync::atomic::Ordering::Relaxed));
    eventually!(failing());
    let proxy = serve(Gateway::new(live.clone()));
    for _ in 0..4 {
        expect!(
            send(&proxy, "POST", Vec::new()).await,
            Ok(200),
            "POST / when one of two backends fails its probe"
        );
    }
    a.revive();
    eventually!(!failing());
}
