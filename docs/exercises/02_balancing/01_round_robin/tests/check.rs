//! Checks that each upstream gets its share, and that no upstream at all gives 503.

use ex0201::Balancer;
use testkit::{Client, Origin, expect, serve};

#[tokio::test]
async fn six_requests_are_two_for_each_of_three_upstreams() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let proxy = serve(Balancer::new(&[a.address(), b.address(), c.address()]).unwrap());
    let client = Client::new();
    for turn in 1..=6 {
        expect!(client.get(proxy.url("/")).await.status, 200, "request {turn} is answered by an upstream");
    }
    expect!([a.count("/"), b.count("/"), c.count("/")], [2, 2, 2], "how many requests each upstream got");
}

#[tokio::test]
async fn each_request_takes_one_turn() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let proxy = serve(Balancer::new(&[a.address(), b.address()]).unwrap());
    let client = Client::new();
    for _ in 1..=4 {
        client.get(proxy.url("/")).await;
    }
    expect!([a.count("/"), b.count("/")], [2, 2], "how many requests each of two upstreams got");
}

#[tokio::test]
async fn no_upstream_at_all_is_a_503() {
    let proxy = serve(Balancer::new(&[]).unwrap());
    expect!(Client::new().status(proxy.url("/")).await, Ok(503), "GET / when there is no upstream");
}
