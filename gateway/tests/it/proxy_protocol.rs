//! PROXY protocol headers before connections with and without TLS.

use std::net::IpAddr;

use testkit::tls::{Authority, handshake};
use testkit::{Origin, exchange_from, exchange_over};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::Gateway;
use crate::tls::{config, shows};

/// A request with a forwarded address, which the gateway may believe only from the load balancer itself.
const REQUEST: &str =
    "GET / HTTP/1.1\r\nHost: web.test\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";

async fn start(origin: &Origin) -> Gateway {
    let authority = Authority::new();
    let keys = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\nhttp2_cleartext = true";
    let identity = authority.issue("web.test");
    Gateway::start_with_config(&config(origin.address(), keys, &[shows("web.test", &identity)])).await
}

fn binary(address: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = address;
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[a, b, c, d, 127, 0, 0, 1, 0x30, 0x39, 0, 80]].concat()
}

async fn said(gateway: &Gateway, source: IpAddr, header: &[u8]) -> String {
    exchange_from(source, gateway.address, &[header, REQUEST.as_bytes()].concat()).await
}

const TRUSTED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn the_client_is_who_the_header_says() {
    let origin = Origin::start().await;
    let gateway = start(&origin).await;
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 80\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 80\r\n".to_vec(), "2001:db8::1"),
        // The load balancer does not know the client. The client's own field must not be believed then.
        (b"PROXY UNKNOWN\r\n".to_vec(), ""),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), "6.6.6.6"),
        (binary([192, 0, 2, 9]), "192.0.2.9"),
    ] {
        origin.forget();
        let answer = said(&gateway, TRUSTED, &header).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(origin.received()[0].header("x-forwarded-for"), client);
    }
}

#[tokio::test]
async fn proxy_header_comes_before_the_tls_handshake() {
    let origin = Origin::start().await;
    let gateway = start(&origin).await;
    let https = gateway.https().await;
    // A relay in front of the gateway that sends a PROXY header for its client.
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = relay.local_addr().unwrap();
    let relaying = tokio::spawn(async move {
        let (mut client, _) = relay.accept().await.unwrap();
        let mut server = TcpStream::connect(https).await.unwrap();
        server.write_all(&binary([192, 0, 2, 5])).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    let stream = handshake(address, Some("web.test"), |_| Ok(())).await.unwrap();
    let answer = exchange_over(stream, REQUEST.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(origin.received()[0].header("x-forwarded-for"), "192.0.2.5");
    relaying.abort();
}

#[tokio::test]
async fn missing_or_untrusted_proxy_header_closes_the_connection() {
    let origin = Origin::start().await;
    let gateway = start(&origin).await;
    let stranger = "127.0.0.2".parse().unwrap();
    for (source, header) in [
        (TRUSTED, &b""[..]),
        (TRUSTED, b"PROXY TCP4 192.0.2.1\r\n"),
        (TRUSTED, b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c"),
        (stranger, b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 80\r\n"),
        (stranger, b""),
    ] {
        assert_eq!(said(&gateway, source, header).await, "", "{source} {}", header.escape_ascii());
    }
    assert_eq!(origin.received().len(), 0);
    assert_eq!(gateway.metric("proxy_proxy_headers_refused_total").await, 5.0);
    assert!(handshake(gateway.https().await, Some("web.test"), |_| Ok(())).await.is_err());
}

#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let origin = Origin::start().await;
    let gateway = start(&origin).await;
    let mut stream = TcpSocket::new_v4().unwrap().connect(gateway.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in binary([192, 0, 2, 6]) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = exchange_over(stream, REQUEST.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(origin.received()[0].header("x-forwarded-for"), "192.0.2.6");
}
