//! The upstream is told who asks, and a client cannot pretend to be somebody else.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::{IpAddr, Ipv4Addr};

use ex0302::Forwarded;
use http::Request;
use testkit::{Client, Origin, expect, serve};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The values of X-Forwarded-For that the upstream got, when a client on 127.0.0.1 sent `claims`.
async fn told(trusted: &[IpAddr], claims: &[&str]) -> Vec<String> {
    let origin = Origin::start().await;
    let proxy = serve(Forwarded { upstream: origin.address(), trusted: trusted.to_vec() });
    let mut request = Request::get(proxy.url("/"));
    for claim in claims {
        request = request.header("X-Forwarded-For", *claim);
    }
    Client::new().send(request.body(Default::default()).unwrap()).await;
    let received = origin.received();
    let values = received[0].headers.get_all("x-forwarded-for").iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_stranger_is_who_its_connection_says() {
    let proxy = Forwarded { upstream: ([127, 0, 0, 1], 1).into(), trusted: vec![] };
    let told = proxy.forwarded_for("192.0.2.7".parse().unwrap(), &["6.6.6.6"]);
    expect!(told, "192.0.2.7", "192.0.2.7, whom nobody trusts, claims to ask for 6.6.6.6");
}

#[test]
fn a_trusted_proxy_is_believed_and_added() {
    let trusted: IpAddr = "192.0.2.7".parse().unwrap();
    let proxy = Forwarded { upstream: ([127, 0, 0, 1], 1).into(), trusted: vec![trusted] };
    let told = proxy.forwarded_for(trusted, &["198.51.100.1, 198.51.100.2", "198.51.100.3"]);
    let all = "198.51.100.1, 198.51.100.2, 198.51.100.3, 192.0.2.7";
    expect!(told, all, "192.0.2.7, who is trusted, passes on two field lines");
    expect!(proxy.forwarded_for(trusted, &[]), "192.0.2.7", "192.0.2.7, who is trusted, passes nothing on");
}

#[tokio::test]
async fn the_upstream_is_told() {
    expect!(told(&[], &[]).await, ["127.0.0.1"], "X-Forwarded-For at the upstream");
}

#[tokio::test]
async fn a_forged_field_does_not_reach_the_upstream() {
    let what = "X-Forwarded-For at the upstream, when a stranger has sent two of its own";
    let somebody_else = [IpAddr::from([192, 0, 2, 1])];
    expect!(told(&somebody_else, &["6.6.6.6", "7.7.7.7"]).await, ["127.0.0.1"], "{what}");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_reaches_the_upstream() {
    let what = "X-Forwarded-For at the upstream, when a trusted proxy on 127.0.0.1 has sent two of them";
    let claims = ["198.51.100.1", "198.51.100.2"];
    expect!(told(&[LOCALHOST], &claims).await, ["198.51.100.1, 198.51.100.2, 127.0.0.1"], "{what}");
}
