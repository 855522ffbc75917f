//! WebSocket messages must pass unchanged: every kind, every size, over TLS, and for many clients at once.

use std::pin::Pin;

use bytes::Bytes;
use futures::SinkExt;
use futures::future::join_all;
use openssl::ssl::{SslConnector, SslMethod};
use testkit::tls::Authority;
use testkit::{Origin, eventually};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;
use tokio_tungstenite::tungstenite::Message;

use super::{Echo, Event, close, connect, echoed, next, over, shake_hands};

#[tokio::test]
async fn text_binary_pings_and_closes_pass() {
    let mut echo = Echo::start().await;
    let gateway = over(echo.address, "", "").await;
    let mut socket = connect(&gateway).await;
    echoed(&mut socket, Message::text("grüß dich")).await;
    echoed(&mut socket, Message::text("")).await;
    for length in [1, 125, 126, 65_535, 64 * 1024, 1 << 20] {
        let payload: Vec<u8> = (0..length).map(|n: u32| n as u8).collect();
        echoed(&mut socket, Message::binary(payload)).await;
    }
    socket.send(Message::Ping(Bytes::from_static(b"still there?"))).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Message::Pong(Bytes::from_static(b"still there?"))));
    socket.send(Message::Pong(Bytes::from_static(b"unasked"))).await.unwrap();
    assert_eq!(echo.event().await, Event::Pong(b"unasked".to_vec()));
    socket.send(close(4242, "enough")).await.unwrap();
    assert_eq!(echo.event().await, Event::Close(Some(4242)));
    assert_eq!(next(&mut socket).await, Some(close(4242, "enough")), "the backend's answer to it");
    assert_eq!(next(&mut socket).await, None);
    assert_eq!(echo.event().await, Event::End);
}

#[tokio::test]
async fn over_tls_on_both_sides() {
    let authority = Authority::new();
    let identity = authority.issue("web.test");
    let origin = Origin::start_tls(&identity).await;
    for protocol in ["http1", "auto"] {
        let host = format!(
            "[upstream]\ntls = true\nsni = \"web.test\"\nca_file = \"{}\"\nprotocol = \"{protocol}\"\n\
             [[virtual_hosts]]\ndomain = \"web.test\"\nenabled_backends_tag = \"all\"\n\
             cert_file = \"{}\"\nkey_file = \"{}\"\n",
            authority.certificate_file().display(),
            identity.certificate_file().display(),
            identity.key_file().display(),
        );
        let gateway = over(origin.address(), "listen_addr = \"127.0.0.1:0\"", &host).await;
        let line = gateway.process.line("listening on https://").await;
        let https = line.rsplit("https://").next().unwrap().trim_end_matches('"').to_owned();
        let mut tls = SslConnector::builder(SslMethod::tls_client()).unwrap();
        tls.cert_store_mut().add_cert(authority.certificate()).unwrap();
        let tls = tls.build().configure().unwrap().into_ssl("web.test").unwrap();
        let mut stream = SslStream::new(tls, TcpStream::connect(https).await.unwrap()).unwrap();
        Pin::new(&mut stream).connect().await.unwrap();
        let mut socket = shake_hands(stream, "wss://web.test/ws").await;
        echoed(&mut socket, Message::text("secret")).await;
        echoed(&mut socket, Message::binary(vec![7; 300_000])).await;
        socket.close(None).await.unwrap();
        while next(&mut socket).await.is_some() {}
        // A client of the gateway's listener without TLS, for the same backend.
        let mut socket =
            shake_hands(TcpStream::connect(gateway.address).await.unwrap(), "ws://web.test/ws").await;
        echoed(&mut socket, Message::binary(vec![8; 300_000])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once() {
    const SOCKETS: usize = 1_000;
    let echo = Echo::start().await;
    let gateway = over(echo.address, "", "").await;
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS / 50 {
        sockets.extend(join_all((0..50).map(|_| connect(&gateway))).await);
    }
    eventually!(gateway.metric("proxy_websockets_active").await == SOCKETS as f64);
    let active = "proxy_backend_requests_active{backend=\"origin-0\"}";
    assert_eq!(
        gateway.metric(active).await,
        SOCKETS as f64,
        "a backend serves each of them as long as it lasts"
    );
    for round in 0..2 {
        let talk = sockets.iter_mut().enumerate().map(|(n, socket)| async move {
            echoed(socket, Message::text(format!("{round} of {n}"))).await;
        });
        join_all(talk).await;
    }
    drop(sockets);
    eventually!(gateway.metric("proxy_websockets_active").await == 0.0);
    eventually!(gateway.metric(active).await == 0.0);
}
