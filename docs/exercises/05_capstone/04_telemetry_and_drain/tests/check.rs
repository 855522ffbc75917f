//! Checks what operators see of requests that end in different ways, and that a drain waits for them.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../../01_routes_over_pools/tests/support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Instant;

use ex0504::config::Config;
use ex0504::drain::drained;
use ex0504::live::Live;
use ex0504::proxy::Gateway;
use ex0504::telemetry::Telemetry;
use http::Request;
use serde_json::{Value, json};
use support::{PROXY, file};
use testkit::{Behaviour, Client, Origin, ServedProxy, eventually, expect, serve};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ROUTES: [(&str, &str); 2] = [("/anything", "all"), ("/delay", "all")];

fn gateway(policy: &str, backends: &[SocketAddr]) -> (ServedProxy, Arc<Telemetry>) {
    Log::begin();
    let backends: Vec<_> = backends.iter().map(|address| ("all", *address)).collect();
    let live = Arc::new(Live::new(Config::parse(&file(PROXY, policy, &ROUTES, &backends)).unwrap()));
    let telemetry = Arc::new(Telemetry::new().unwrap());
    (serve(Gateway::new(live, telemetry.clone())), telemetry)
}

async fn send(proxy: &ServedProxy, method: &str, path: &str) {
    let request = Request::builder().method(method).uri(proxy.url(path)).body(Default::default());
    Client::new().send(request.unwrap()).await;
}

/// Sends a request, waits until the backend has it, and closes the connection.
async fn leave(proxy: &ServedProxy, origin: &Origin) {
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"GET /anything/left HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually!(origin.count("/anything/left") == 1);
}

/// Returns each series of finished requests, as in "GET /api 4xx = 1", sorted.
fn series(telemetry: &Telemetry) -> Vec<String> {
    let text = telemetry.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("proxy_requests_total{"));
    let mut series: Vec<String> = lines
        .map(|line| {
            let parts: Vec<&str> = line.split('"').collect();
            format!("{} {} {} ={}", parts[1], parts[3], parts[5], parts[6].trim_start_matches('}'))
        })
        .collect();
    series.sort();
    series
}

thread_local! {
    /// Log of the test that runs on this thread. Its gateway runs on the same thread.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writer to the log of this thread.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| Write::write(log, bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Begins an empty log. All tests share one subscriber: with one for each test, `tracing` may remember from a
    /// test without a log that nothing wants the line.
    fn begin() {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| tracing_subscriber::fmt().json().with_writer(|| Log).init());
        LOG.take();
    }

    /// Returns the fields of each line of the access log.
    fn lines() -> Vec<Value> {
        let text = LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["target"] == "access").map(|line| line["fields"].clone()).collect()
    }

    /// Waits for the only line of the access log, and returns its fields.
    async fn line() -> Value {
        expect!(eventually Log::lines().len(), 1, "how many lines the access log has after one request");
        Log::lines().remove(0)
    }
}

#[tokio::test]
async fn requests_are_counted_however_they_end() {
    let (dead, origin) = (Origin::dead(), Origin::start().await);
    let policy = "rate_limit_requests = 6\nrate_limit_window_secs = 600\nretry_attempts = 1\n";
    let (proxy, telemetry) = gateway(policy, &[origin.address(), dead.address()]);
    send(&proxy, "GET", "/anything/a").await;
    send(&proxy, "POST", "/anything/b").await;
    send(&proxy, "GET", "/nowhere").await;
    send(&proxy, "PATCH", "/delay/0").await;
    origin.behave(Behaviour::Status(304));
    for _ in 0..4 {
        send(&proxy, "GET", "/anything/c").await;
    }
    let counted = [
        "GET /anything 2xx = 1",
        "GET /anything 3xx = 2",
        "GET /anything 4xx = 1",
        "GET /anything 5xx = 1",
        "GET none 4xx = 1",
        "POST /anything 5xx = 1",
        "other /delay 2xx = 1",
    ];
    expect!(eventually series(&telemetry), counted, "method, route and status class of eight requests");
}

#[tokio::test]
async fn made_up_paths_and_methods_make_only_few_series() {
    let origin = Origin::start().await;
    let (proxy, telemetry) = gateway("", &[origin.address()]);
    for i in 0..4 {
        send(&proxy, "GET", &format!("/anything/made-up-{i}")).await;
        send(&proxy, "GET", &format!("/made-up-{i}")).await;
        send(&proxy, &format!("MADE-UP-{i}"), "/anything").await;
    }
    let counted = ["GET /anything 2xx = 4", "GET none 4xx = 4", "other /anything 2xx = 4"];
    expect!(eventually series(&telemetry), counted, "all series after twelve requests with made-up values");
}

#[tokio::test]
async fn a_line_of_the_log_tells_what_happened() {
    let (dead, origin) = (Origin::dead(), Origin::start().await);
    let (proxy, _telemetry) = gateway("", &[dead.address(), origin.address()]);
    send(&proxy, "GET", "/delay/300?q").await;
    let line = Log::line().await;
    let told = ["method", "path", "status", "backend", "failed_attempts"].map(|field| line[field].clone());
    let expected = [json!("GET"), json!("/delay/300"), json!(200), json!("backend-1"), json!(1)];
    expect!(told, expected, "method, path, status, backend and failed_attempts in the access log");
    let duration = line["duration_ms"].as_u64().unwrap_or(0);
    expect!(
        (300..5000).contains(&duration),
        true,
        "duration_ms is that of the whole request, and not {duration}"
    );
}

#[tokio::test]
async fn a_local_reply_has_a_line_in_the_log() {
    let (proxy, _telemetry) = gateway("", &[Origin::dead().address()]);
    send(&proxy, "GET", "/nowhere").await;
    expect!(Log::line().await["status"], 404, "the status in the access log of a request without a route");
}

#[tokio::test]
async fn a_client_that_leaves_is_499_in_the_log() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Stall);
    let (proxy, telemetry) = gateway("", &[origin.address()]);
    leave(&proxy, &origin).await;
    expect!(Log::line().await["status"], 499, "the status in the access log when the client leaves");
    expect!(eventually telemetry.in_flight(), 0, "requests in flight after the client has left");
}

#[tokio::test]
async fn requests_count_as_active_until_their_end() {
    let origin = Origin::start().await;
    let (proxy, telemetry) = gateway("", &[origin.address()]);
    let url = proxy.url("/delay/500");
    let in_flight = tokio::spawn(async move { Client::new().status(url).await });
    eventually!(origin.count("/delay/500") == 1);
    expect!(telemetry.in_flight(), 1, "requests in flight while one waits for its backend");
    expect!(in_flight.await.unwrap(), Ok(200), "GET /delay/500");
    send(&proxy, "GET", "/nowhere").await;
    expect!(eventually telemetry.in_flight(), 0, "requests in flight when all are over");
}

#[tokio::test]
async fn a_drain_waits_for_the_last_response_and_ends_connections() {
    let origin = Origin::start().await;
    let (proxy, telemetry) = gateway("", &[origin.address()]);
    let before = Client::new().get(proxy.url("/anything")).await;
    expect!(before.header("connection"), "keep-alive", "Connection before the process is told to end");
    let url = proxy.url("/delay/1000");
    let in_flight = tokio::spawn(async move { (Client::new().get(url).await, Instant::now()) });
    eventually!(origin.count("/delay/1000") == 1);
    drop(proxy);
    drained(&telemetry).await;
    let drained_at = Instant::now();
    let (answer, answered_at) = in_flight.await.unwrap();
    expect!(answer.status, 200, "the request that was in flight when the drain began");
    expect!(answer.header("connection"), "close", "Connection in the response during the drain");
    expect!(drained_at >= answered_at, true, "the drain ends after the last response");
}
