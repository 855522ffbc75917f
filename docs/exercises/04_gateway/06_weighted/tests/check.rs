//! Checks that each upstream gets the share that its weight says, and that the shares are mixed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::SocketAddr;

use ex0406::Weighted;
use testkit::{Client, Origin, expect, serve};

/// Returns the upstreams that are picked, as a text with one letter for each turn. The first upstream is A.
fn turns(weights: &[u32], count: usize) -> String {
    let upstreams: Vec<_> = (1..).zip(weights).map(|(port, weight)| (address(port), *weight)).collect();
    let weighted = Weighted::new(&upstreams).unwrap();
    (0..count).map(|_| (b'A' + (weighted.pick().port() - 1) as u8) as char).collect()
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn equal_weights_are_plain_round_robin() {
    expect!(turns(&[1, 1, 1], 6), "ABCABC", "six turns of A, B and C with the weights 1, 1 and 1");
}

#[test]
fn a_heavy_upstream_is_mixed_with_the_others() {
    expect!(turns(&[5, 1, 1], 14), "AABACAAAABACAA", "fourteen turns with the weights 5, 1 and 1");
}

#[test]
fn weight_0_gets_no_requests() {
    expect!(turns(&[0, 2, 0, 1], 6), "BDBBDB", "six turns of A to D with the weights 0, 2, 0 and 1");
    expect!(
        Weighted::new(&[(address(1), 0)]).is_none(),
        true,
        "whether a balancer without any weight is refused"
    );
    expect!(Weighted::new(&[]).is_none(), true, "whether a balancer without upstreams is refused");
}

#[tokio::test]
async fn a_thousand_requests_are_shared_by_weight() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let proxy = serve(Weighted::new(&[(a.address(), 6), (b.address(), 3), (c.address(), 1)]).unwrap());
    let client = Client::new();
    for _ in 0..1000 {
        client.get(proxy.url("/")).await;
    }
    let shares = [a.count("/"), b.count("/"), c.count("/")];
    expect!(
        shares,
        [600, 300, 100],
        "how many of 1000 requests each upstream got, with the weights 6, 3 and 1"
    );
}
