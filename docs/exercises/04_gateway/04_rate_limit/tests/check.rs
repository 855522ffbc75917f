//! Checks that the first requests pass, that the next ones get 429, and that requests pass again after the
//! window.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use ex0404::{LIMIT, RateLimited};
use http::Request;
use testkit::{Client, Origin, exchange_from, expect, serve};

#[tokio::test]
async fn requests_beyond_the_limit_get_429() {
    let origin = Origin::start().await;
    // The window is so long that the test is over before the window ends.
    let proxy = serve(RateLimited::new(origin.address(), Duration::from_secs(600)));
    // Each request comes on another connection.
    for turn in 1..=LIMIT {
        let answer = Client::new().get(proxy.url("/")).await;
        expect!(answer.status, 200, "request {turn} of a client that may send {LIMIT}");
    }
    for _ in 0..2 {
        let answer = Client::new().get(proxy.url("/")).await;
        expect!(answer.status, 429, "a request beyond {LIMIT}");
        expect!(answer.header("retry-after"), "600", "Retry-After of a request beyond {LIMIT}");
        expect!(answer.header("content-length"), "0", "Content-Length of a request beyond {LIMIT}");
    }
    expect!(origin.count("/") as isize, LIMIT, "how many requests the upstream got");
}

#[tokio::test]
async fn a_client_cannot_choose_the_name_it_is_counted_by() {
    let origin = Origin::start().await;
    let proxy = serve(RateLimited::new(origin.address(), Duration::from_secs(600)));
    let client = Client::new();
    let mut statuses = Vec::new();
    for turn in 0..=LIMIT {
        let from = format!("192.0.2.{turn}");
        let request =
            Request::get(proxy.url("/")).header("X-Forwarded-For", &from).header("X-Real-IP", &from);
        statuses.push(client.send(request.body(Default::default()).unwrap()).await.status.as_u16());
    }
    let expected = [200, 200, 200, 429];
    expect!(statuses, expected, "requests of a client that writes other addresses in its X-Forwarded-For");
}

#[test]
fn addresses_of_one_ipv6_network_are_one_client() {
    let limited = RateLimited::new(([127, 0, 0, 1], 1).into(), Duration::from_secs(600));
    let admits = |address: &str| limited.admits(address.parse().unwrap());
    let admitted = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"].map(admits);
    let expected = [true, true, true, false];
    expect!(admitted, expected, "whether requests pass that come from four addresses of one IPv6 network");
    expect!(admits("2001:db8:0:1::1"), true, "whether a request passes that comes from another IPv6 network");
}

#[tokio::test]
async fn each_client_is_counted_separately() {
    let origin = Origin::start().await;
    let proxy = serve(RateLimited::new(origin.address(), Duration::from_secs(600)));
    let client = Client::new();
    for _ in 0..=LIMIT {
        client.get(proxy.url("/")).await;
    }
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = exchange_from([127, 0, 0, 2].into(), proxy.address(), request).await;
    let status = answer.lines().next().unwrap_or_default();
    expect!(status, "HTTP/1.1 200 OK", "the first request of 127.0.0.2, when 127.0.0.1 has sent too many");
}

#[tokio::test]
async fn after_the_window_a_client_passes_again() {
    let origin = Origin::start().await;
    let proxy = serve(RateLimited::new(origin.address(), Duration::from_secs(1)));
    let client = Client::new();
    let status = async || client.get(proxy.url("/")).await.status;
    expect!(eventually status().await, 429, "requests one after another, {LIMIT} of which may pass in a second");
    expect!(eventually status().await, 200, "requests after the second is over");
}
