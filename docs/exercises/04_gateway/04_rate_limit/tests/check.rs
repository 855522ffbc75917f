//! Checks that the first requests pass, that the next ones get 429, and that requests pass again after the
//! window.

use std::time::Duration;

use ex0404::{LIMIT, RateLimited};
use testkit::{Client, Origin, exchange_from, expect, serve};

#[tokio::test]
async fn requests_beyond_the_limit_get_429() {
    let origin = Origin::start().await;
    // The window is so long that the test is over before the window ends.
    let proxy = serve(RateLimited::new(origin.address(), Duration::from_secs(600)));
    let client = Client::new();
    for turn in 1..=LIMIT {
        expect!(
            client.get(proxy.url("/")).await.status,
            200,
            "request {turn} of a client that may send {LIMIT}"
        );
    }
    for _ in 0..2 {
        let answer = client.get(proxy.url("/")).await;
        expect!(answer.status, 429, "a request beyond {LIMIT}");
        expect!(answer.header("retry-after"), "600", "Retry-After of a request beyond {LIMIT}");
        expect!(answer.header("content-length"), "0", "Content-Length of a request beyond {LIMIT}");
    }
    expect!(origin.count("/") as isize, LIMIT, "how many requests the upstream got");
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
