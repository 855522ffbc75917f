//! Checks that clients stay with their upstreams, and that only those move whose upstream has left.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ex0205::{Sharded, key};
use testkit::{Origin, ServedProxy, exchange_from, expect, serve};

/// Number of clients, each with its own address on loopback.
const CLIENTS: u8 = 40;

fn proxy(origins: &[&Origin], secret: &str) -> Sharded {
    let upstreams: Vec<_> = origins.iter().map(|origin| origin.address()).collect();
    Sharded::new(&upstreams, secret).unwrap()
}

/// Sends a request from `client`, with these fields. Returns the label of the upstream, or the status line of
/// another response.
async fn upstream_of(proxy: &ServedProxy, client: u8, fields: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n");
    let source = Ipv4Addr::new(127, 0, 0, client);
    let answer = exchange_from(source.into(), proxy.address(), request.as_bytes()).await;
    let label = answer.lines().find_map(|line| line.strip_prefix("x-origin: "));
    label.or(answer.lines().next()).unwrap_or("no response").to_owned()
}

/// Returns the upstream of every client, the first client first.
async fn placement(proxy: &ServedProxy) -> Vec<String> {
    let mut upstreams = Vec::new();
    for client in 1..=CLIENTS {
        upstreams.push(upstream_of(proxy, client, "").await);
    }
    upstreams
}

#[tokio::test]
async fn a_client_stays_with_its_upstream() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let proxy = serve(proxy(&[&a, &b, &c], "secret"));
    let first = placement(&proxy).await;
    let labels = BTreeSet::from([a.label(), b.label(), c.label()]);
    expect!(
        first.iter().cloned().collect::<BTreeSet<_>>(),
        labels,
        "the upstreams that {CLIENTS} clients get"
    );
    expect!(placement(&proxy).await, first, "the upstreams of the same clients, on new connections");
}

#[tokio::test]
async fn a_client_cannot_choose_its_upstream() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let proxy = serve(proxy(&[&a, &b, &c], "secret"));
    let own = upstream_of(&proxy, 1, "").await;
    for number in 1..=8 {
        let fields = format!("X-Forwarded-For: 192.0.2.{number}\r\nCookie: session={number}\r\n");
        let with_fields = upstream_of(&proxy, 1, &fields).await;
        expect!(with_fields, own, "the upstream of the same client, when it sends {fields:?}");
    }
}

#[tokio::test]
async fn only_clients_of_the_unhealthy_upstream_move() {
    let (a, b, mut c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let balanced = proxy(&[&a, &b, &c], "secret");
    let proxy = serve(balanced.clone());
    let before = placement(&proxy).await;
    c.die().await;
    balanced.check_health().await;
    let after = placement(&proxy).await;
    let errors: BTreeSet<_> = after.iter().filter(|label| label.starts_with("HTTP")).collect();
    expect!(errors, BTreeSet::<&String>::new(), "error responses while one of three upstreams is unhealthy");
    let needless = before.iter().zip(&after).filter(|(old, new)| **old != c.label() && old != new).count();
    expect!(needless, 0, "how many clients moved although their own upstream is healthy");
    let still = after.iter().filter(|label| **label == c.label()).count();
    expect!(still, 0, "how many clients still get the unhealthy upstream");
    c.revive();
    balanced.check_health().await;
    expect!(placement(&proxy).await, before, "the upstreams of all clients, when the upstream is back");
}

#[tokio::test]
async fn a_new_upstream_takes_clients_and_moves_no_others() {
    let (a, b, c, d) =
        (Origin::start().await, Origin::start().await, Origin::start().await, Origin::start().await);
    let before = placement(&serve(proxy(&[&a, &b, &c], "secret"))).await;
    // The order of the list must not matter.
    let after = placement(&serve(proxy(&[&d, &c, &b, &a], "secret"))).await;
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
    let elsewhere = moved.filter(|(_, new)| **new != d.label()).count();
    expect!(elsewhere, 0, "how many clients moved between old upstreams, when a fourth one was added");
    expect!(after.contains(&d.label()), true, "whether the fourth upstream gets clients");
}

#[tokio::test]
async fn without_a_healthy_upstream_the_answer_is_503() {
    let dead = Origin::dead();
    let balanced = proxy(&[&dead], "secret");
    balanced.check_health().await;
    let answer = upstream_of(&serve(balanced), 1, "").await;
    expect!(answer, "HTTP/1.1 503 Service Unavailable", "the answer without a healthy upstream");
}

#[tokio::test]
async fn proxies_with_one_secret_agree_and_others_do_not() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let of = async |secret| placement(&serve(proxy(&[&a, &b, &c], secret))).await;
    let first = of("secret").await;
    expect!(
        of("secret").await,
        first,
        "the upstreams of the same clients at a second proxy with the same secret"
    );
    let differ = of("another secret").await != first;
    expect!(differ, true, "whether another secret places the clients in another way");
}

#[test]
fn a_key_belongs_to_a_client_and_not_to_an_address() {
    let key = |client: &str| key("secret", client.parse::<IpAddr>().unwrap());
    let same = |a: &str, b: &str| key(a) == key(b);
    for (a, b, expected) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
    ] {
        expect!(same(a, b), expected, "whether {a} and {b} have the same key");
    }
}
