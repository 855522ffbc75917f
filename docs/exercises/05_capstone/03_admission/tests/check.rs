//! Checks the order of admission, and that a refused request gets a complete reply and reaches no backend.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../../01_routes_over_pools/tests/support/mod.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use ex0503::config::{Config, Policy};
use ex0503::live::Live;
use ex0503::proxy::Gateway;
use ex0503::rate_limit::RateLimiter;
use http::Request;
use support::{PROXY, file};
use testkit::{Client, Origin, Response, ServedProxy, converse, exchange, exchange_from, expect, serve};

/// Policy with three requests for each client, in a window that is longer than any test.
const THREE: &str = "rate_limit_requests = 3\nrate_limit_window_secs = 600\nmax_request_body_bytes = 10";

/// Serves the paths below `/anything`.
fn gateway(policy: &str, origin: &Origin) -> ServedProxy {
    let text = file(PROXY, policy, &[("/anything", "all")], &[("all", origin.address())]);
    serve(Gateway::new(Arc::new(Live::new(Config::parse(&text).unwrap()))))
}

/// Checks that a response is a problem report with this status.
fn is_problem(answer: &Response, status: u16, what: &str) {
    expect!(answer.status, status, "{what}");
    expect!(answer.header("content-type"), "application/problem+json", "Content-Type of a reply: {what}");
    let problem = status_in(&answer.text());
    expect!(problem, Some(status), "the status in the problem report: {what}");
}

fn status_in(text: &str) -> Option<u16> {
    text.split("\"status\":").nth(1)?.split([',', '}']).next()?.parse().ok()
}

#[tokio::test]
async fn a_path_without_a_route_gets_404() {
    let origin = Origin::start().await;
    let proxy = gateway(THREE, &origin);
    is_problem(&Client::new().get(proxy.url("/nowhere")).await, 404, "GET /nowhere, which has no route");
    expect!(origin.received().len(), 0, "how many requests without a route the backend got");
    expect!(
        Client::new().status(proxy.url("/anything/x")).await,
        Ok(200),
        "GET /anything/x, which has a route"
    );
}

#[tokio::test]
async fn requests_beyond_the_limit_get_429() {
    let origin = Origin::start().await;
    let proxy = gateway(THREE, &origin);
    let client = Client::new();
    for turn in 1..=3 {
        expect!(
            client.status(proxy.url("/anything")).await,
            Ok(200),
            "request {turn} of a client that may send 3"
        );
    }
    for _ in 0..2 {
        let answer = client.get(proxy.url("/anything")).await;
        is_problem(&answer, 429, "a request beyond the limit");
        let wait = answer.header("retry-after").parse::<u64>().unwrap_or(0);
        expect!((1..=600).contains(&wait), true, "Retry-After is within the window, and not {wait}");
    }
    expect!(origin.count("/anything"), 3, "how many of five requests the backend got");
    let request = b"GET /anything HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let other = exchange_from([127, 0, 0, 2].into(), proxy.address(), request).await;
    expect!(other, contains "HTTP/1.1 200 OK", "a request of another client");
}

#[tokio::test]
async fn a_client_cannot_forge_another_address() {
    let origin = Origin::start().await;
    let proxy = gateway(THREE, &origin);
    let status = async |i: u8| {
        let request = Request::get(proxy.url("/anything")).header("X-Forwarded-For", format!("192.0.2.{i}"));
        Client::new().send(request.body(Default::default()).unwrap()).await.status.as_u16()
    };
    let statuses = [status(1).await, status(2).await, status(3).await, status(4).await];
    expect!(statuses, [200, 200, 200, 429], "requests of one client with four made-up X-Forwarded-For");
}

#[tokio::test]
async fn a_body_that_is_too_long_gets_413_or_411() {
    let origin = Origin::start().await;
    let proxy = gateway(&THREE.replace("= 3", "= 99"), &origin);
    let client = Client::new();
    let answer = client.post(proxy.url("/anything"), vec![b'x'; 10]).await;
    expect!(answer.status, 200, "POST with a body of 10 bytes, which is the limit");
    is_problem(
        &client.post(proxy.url("/anything"), vec![b'x'; 11]).await,
        413,
        "POST with a body of 11 bytes",
    );
    is_problem(
        &client.post(proxy.url("/anything"), vec![b'x'; 1 << 20]).await,
        413,
        "POST with a body of 1 MiB",
    );
    let chunked =
        b"POST /anything HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                    10\r\n0123456789abcdef\r\n0\r\n\r\n";
    let answer = exchange(proxy.address(), chunked).await;
    expect!(answer, contains "HTTP/1.1 411 ", "POST with a body in chunks");
    let twice =
        b"POST /anything HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4, 4\r\n\r\nbody";
    let answer = exchange(proxy.address(), twice).await;
    expect!(answer.starts_with("HTTP/1.1 4"), true, "POST with two lengths in one field");
    expect!(origin.received().len(), 1, "how many of five requests with bodies the backend got");
}

#[tokio::test]
async fn refused_requests_do_not_count_against_the_rate_limit() {
    let origin = Origin::start().await;
    let proxy = gateway(THREE, &origin);
    let client = Client::new();
    for _ in 0..3 {
        client.get(proxy.url("/nowhere")).await;
        client.post(proxy.url("/anything"), vec![b'x'; 11]).await;
    }
    let status = client.status(proxy.url("/anything")).await;
    expect!(status, Ok(200), "the first request that passes the other checks, after six that do not");
}

#[tokio::test]
async fn a_reply_leaves_the_connection_to_the_next_request() {
    let origin = Origin::start().await;
    let proxy = gateway(THREE, &origin);
    let refused = "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let last = "GET /anything HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answers = converse(proxy.address(), &[refused, refused, last]).await;
    expect!(answers.matches("HTTP/1.1 404 ").count(), 2, "404 for the first two requests of a connection");
    expect!(answers.matches("HTTP/1.1 200 ").count(), 1, "200 for the third request of this connection");
    let head = b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = exchange(proxy.address(), head).await;
    expect!(answer.ends_with("\r\n\r\n"), true, "the reply to a HEAD request has no body");
    let waits = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let answer = exchange(proxy.address(), waits).await;
    expect!(answer, contains "Connection: close", "the reply to a request whose body may still come");
}

#[tokio::test]
async fn errors_of_backends_get_problem_reports() {
    let origin = Origin::dead();
    let proxy = gateway("circuit_breaker_failures = 1\nretry_attempts = 1", &origin);
    is_problem(
        &Client::new().get(proxy.url("/anything")).await,
        502,
        "GET /anything from a backend that is dead",
    );
    let answer = Client::new().get(proxy.url("/anything")).await;
    is_problem(&answer, 503, "GET /anything when the circuit of the only backend is open");
    expect!(answer.header("retry-after"), "1", "Retry-After of a 503");
}

#[test]
fn the_limiter_forgets_clients_and_does_not_grow() {
    let (limiter, now) = (RateLimiter::default(), Instant::now());
    let policy = Policy { rate_limit_requests: 1, ..Policy::default() };
    let passes = |client: u32| limiter.check(IpAddr::V4(Ipv4Addr::from(client)), &policy, now).is_ok();
    expect!([passes(0), passes(0)], [true, false], "two requests of a client that may send one");
    (1..100_000).for_each(|client| {
        passes(client);
    });
    expect!(passes(0), true, "the client again, after more clients than the table may hold");
}
