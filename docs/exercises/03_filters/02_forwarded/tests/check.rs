//! Checks that the upstream learns the client's address, and that a client cannot forge it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::{IpAddr, Ipv4Addr};

use ex0302::Forwarded;
use http::Request;
use testkit::{Client, Origin, eventually, exchange_over, expect, serve, serve_on};
use tokio::net::UnixStream;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Returns the values of X-Forwarded-For that the upstream gets if a client on 127.0.0.1 sends `claims`.
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
fn claims_of_an_untrusted_peer_are_ignored() {
    let proxy = Forwarded { upstream: ([127, 0, 0, 1], 1).into(), trusted: vec![] };
    let told = proxy.forwarded_for("192.0.2.7".parse().unwrap(), &["6.6.6.6"]);
    expect!(told, "192.0.2.7", "X-Forwarded-For, when the untrusted 192.0.2.7 sends 6.6.6.6");
}

#[test]
fn claims_of_a_trusted_peer_are_kept_before_its_address() {
    let trusted: IpAddr = "192.0.2.7".parse().unwrap();
    let proxy = Forwarded { upstream: ([127, 0, 0, 1], 1).into(), trusted: vec![trusted] };
    let told = proxy.forwarded_for(trusted, &["198.51.100.1, 198.51.100.2", "198.51.100.3"]);
    let all = "198.51.100.1, 198.51.100.2, 198.51.100.3, 192.0.2.7";
    expect!(told, all, "X-Forwarded-For, when the trusted 192.0.2.7 sends two field lines");
    expect!(
        proxy.forwarded_for(trusted, &[]),
        "192.0.2.7",
        "X-Forwarded-For, when the trusted 192.0.2.7 sends none"
    );
}

#[tokio::test]
async fn the_upstream_gets_the_address_of_the_client() {
    expect!(told(&[], &[]).await, ["127.0.0.1"], "X-Forwarded-For at the upstream");
}

#[tokio::test]
async fn a_forged_field_does_not_reach_the_upstream() {
    let what = "X-Forwarded-For at the upstream, when an untrusted client has sent two";
    let somebody_else = [IpAddr::from([192, 0, 2, 1])];
    expect!(told(&somebody_else, &["6.6.6.6", "7.7.7.7"]).await, ["127.0.0.1"], "{what}");
}

#[tokio::test]
async fn claims_of_a_trusted_proxy_reach_the_upstream() {
    let what = "X-Forwarded-For at the upstream, when a trusted proxy on 127.0.0.1 has sent two of them";
    let claims = ["198.51.100.1", "198.51.100.2"];
    expect!(told(&[LOCALHOST], &claims).await, ["198.51.100.1, 198.51.100.2, 127.0.0.1"], "{what}");
}

#[tokio::test]
async fn a_peer_without_an_address_cannot_forge_the_field() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("proxy.sock");
    let origin = Origin::start().await;
    let proxy = Forwarded { upstream: origin.address(), trusted: vec![LOCALHOST] };
    let _proxy = serve_on(proxy, |service, _| service.add_uds(&socket.display().to_string(), None));
    let mut client = UnixStream::connect(&socket).await;
    // The proxy makes the socket when its service has started.
    eventually!(
        client.is_ok() || {
            client = UnixStream::connect(&socket).await;
            client.is_ok()
        }
    );
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";
    let answer = exchange_over(client.unwrap(), request).await;
    expect!(answer, contains "200 OK", "the answer to a client on a Unix socket");
    let values = origin.received()[0].headers.get_all("x-forwarded-for").iter().count();
    expect!(
        values,
        0,
        "how many X-Forwarded-For the upstream gets, when a client on a Unix socket has sent one"
    );
}
