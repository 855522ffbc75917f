//! Checks that an upstream that dies gets no more requests, and that it gets requests again when it is back.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::sync::Arc;
use std::time::Duration;

use ex0202::{Balancer, checked};
use testkit::{Background, Client, Origin, ServedProxy, background, expect, serve};

/// Starts the proxy over `origins`, and its health checks.
fn balance(origins: &[&Origin]) -> (ServedProxy, Background) {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address()).collect();
    let upstreams = Arc::new(checked(&addresses, Duration::from_millis(50)).unwrap());
    (serve(Balancer { upstreams: upstreams.clone() }), background(upstreams))
}

/// Returns the statuses of four requests. If both upstreams count as healthy, each one gets two of the
/// requests.
async fn four(proxy: &ServedProxy) -> Vec<u16> {
    let client = Client::new();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.get(proxy.url("/")).await.status.as_u16());
    }
    statuses
}

#[tokio::test]
async fn an_upstream_that_dies_gets_no_more_requests_until_it_is_back() {
    let (a, mut b) = (Origin::start().await, Origin::start().await);
    let (proxy, _checks) = balance(&[&a, &b]);
    expect!(four(&proxy).await, [200; 4], "four requests while both upstreams are alive");
    b.die().await;
    expect!(eventually four(&proxy).await, [200; 4], "four requests, soon after one of two upstreams has died");
    b.forget();
    b.revive();
    let answered_again = async || {
        four(&proxy).await;
        b.count("/") > 0
    };
    expect!(eventually answered_again().await, true, "the upstream that is back gets requests again");
}

#[test]
fn all_upstreams_are_checked_at_once_at_the_interval() {
    let upstreams = checked(&[], Duration::from_millis(50)).unwrap();
    expect!(upstreams.health_check_frequency, Some(Duration::from_millis(50)), "health_check_frequency");
    expect!(upstreams.parallel_health_check, true, "parallel_health_check");
}

#[tokio::test]
async fn no_healthy_upstream_is_a_503() {
    let (a, b) = (Origin::dead(), Origin::dead());
    let (proxy, _checks) = balance(&[&a, &b]);
    expect!(eventually four(&proxy).await, [503; 4], "four requests, soon after both upstreams have died");
}
