//! Limits of connections per client address, and of requests per connection.

use std::net::{IpAddr, SocketAddr};

use testkit::{Client, Origin, converse, eventually, exchange_from};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{open, start};
use crate::frames::{Frame, GOAWAY, Wire, get};
use crate::support::{Gateway, Setup, config};

const US: &str = "127.0.0.1";
const OTHERS: &str = "127.0.0.2";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

async fn connect(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(address).await.unwrap()
}

/// Sends `first` and a request from the address `source`, and returns the response.
async fn get_from(source: &str, gateway: &Gateway, first: &str) -> String {
    let source: IpAddr = source.parse().unwrap();
    exchange_from(source, gateway.address, format!("{first}{REQUEST}").as_bytes()).await
}

async fn refused(gateway: &Gateway) -> f64 {
    gateway.metric("proxy_connections_refused_total{reason=\"address\"}").await
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "max_connections_per_ip = 2", "").await;
    let held = [connect(US, gateway.address).await, connect(US, gateway.address).await];
    eventually!(open(&gateway).await == 2.0);
    assert_eq!(get_from(US, &gateway, "").await, "");
    assert_eq!(refused(&gateway).await, 1.0);
    assert!(get_from(OTHERS, &gateway, "").await.starts_with("HTTP/1.1 200 "));
    drop(held);
    eventually!(open(&gateway).await == 0.0);
    assert!(get_from(US, &gateway, "").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(refused(&gateway).await, 1.0);
}

#[tokio::test]
async fn connection_limit_changes_at_runtime() {
    let origin = Origin::start().await;
    let with = |proxy| config(&[origin.address()], Setup { proxy, ..Setup::default() });
    let gateway = Gateway::start_with_config(&with("max_connections_per_ip = 1")).await;
    let _held = connect(US, gateway.address).await;
    eventually!(open(&gateway).await == 1.0);
    assert_eq!(get_from(US, &gateway, "").await, "");
    gateway.edit(&with("max_connections_per_ip = 5"));
    eventually!(get_from(US, &gateway, "").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn trusted_proxy_is_exempt_from_the_address_limit() {
    let origin = Origin::start().await;
    let proxy = "max_connections_per_ip = 1\ntrusted_proxies = [\"127.0.0.1\"]";
    let gateway = start(&origin, proxy, "").await;
    let _held = connect(US, gateway.address).await;
    let _held_by_others = connect(OTHERS, gateway.address).await;
    eventually!(open(&gateway).await == 2.0);
    assert!(get_from(US, &gateway, "").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(get_from(OTHERS, &gateway, "").await, "");
}

#[tokio::test]
async fn proxy_header_client_address_counts_for_the_limit() {
    let origin = Origin::start().await;
    let proxy = "max_connections_per_ip = 1\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";
    let gateway = start(&origin, proxy, "").await;
    let one = "PROXY TCP4 192.0.2.1 192.0.2.9 1000 80\r\n";
    let another = "PROXY TCP4 192.0.2.2 192.0.2.9 1000 80\r\n";
    let mut held = connect(US, gateway.address).await;
    // The connection counts by the time that it gets a response.
    held.write_all(format!("{one}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(held.read_u8().await.unwrap(), b'H');
    assert_eq!(get_from(US, &gateway, one).await, "");
    assert!(get_from(US, &gateway, another).await.starts_with("HTTP/1.1 200 "));
    // A connection of unknown origin, or of the load balancer itself, does not count.
    assert!(get_from(US, &gateway, "PROXY UNKNOWN\r\n").await.starts_with("HTTP/1.1 200 "));
    drop(held);
    eventually!(get_from(US, &gateway, one).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_connection_of_http1_ends_with_its_last_request() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "max_requests_per_connection = 3", "").await;
    let again = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answers = converse(gateway.address, &[again; 3]).await;
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 3, "{answers}");
    let last = &answers[answers.rfind("HTTP/1.1 200 ").unwrap()..];
    assert!(last.contains("\r\nConnection: close\r\n"), "{answers}");
    assert_eq!(answers.matches("Connection: close").count(), 1, "{answers}");
    // A client that reuses connections must not see an error.
    let client = Client::new();
    for _ in 0..10 {
        assert_eq!(client.get(gateway.url("/")).await.status, 200);
    }
}

#[tokio::test]
async fn http2_connection_sends_goaway_after_its_last_request() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "max_requests_per_connection = 2", "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(&[Frame::head(1, &get("a"), true)]).await;
    assert_eq!(wire.status(1).await, 200);
    wire.send(&[Frame::head(3, &get("a"), true)]).await;
    let (mut answered, mut goodbye) = (false, false);
    while !(answered && goodbye) {
        let frame = wire.next().await.unwrap();
        answered |= frame.stream == 3 && frame.is_end();
        goodbye |= frame.kind == GOAWAY && frame.reason() == 0;
    }
    assert_eq!(origin.received().len(), 2);
}

#[tokio::test]
async fn http2_connection_ends_without_ack_of_the_goaway_ping() {
    let origin = Origin::start().await;
    let terms = "max_requests_per_connection = 1\nkeepalive_timeout_secs = 1";
    let gateway = start(&origin, terms, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(&[Frame::head(1, &get("a"), true)]).await;
    assert_eq!(wire.status(1).await, 200);
    // The test does not acknowledge the PING that follows the first GOAWAY (RFC 9113 6.8).
    wire.ended().await;
}
