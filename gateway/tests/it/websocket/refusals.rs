//! Upgrade requests that are refused. Each gets the response of an ordinary request.

use testkit::tls::Authority;
use testkit::{Behaviour, Origin, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::{self, REQUEST, SWITCHED};
use super::{Echo, connect, echoed, over};
use crate::support::{Gateway, Setup};

/// Returns the whole response to `request`.
async fn answer(gateway: &Gateway, request: &str) -> String {
    testkit::exchange(gateway.address, request.as_bytes()).await
}

/// Returns the request with a close, so that it is the last one on its connection.
fn last() -> String {
    REQUEST.replace("Connection: Upgrade", "Connection: Upgrade, close")
}

#[tokio::test]
async fn policies_apply_to_upgrade_requests() {
    let echo = Echo::start().await;
    let gateway = over(echo.address, "", "[rate_limit]\nrequests = 1\nwindow_secs = 60\n").await;
    let mut socket = connect(&gateway).await;
    for n in 0..5 {
        // The rate limit counts requests, so messages on an open socket do not count.
        echoed(&mut socket, format!("{n}").into()).await;
    }
    let refused = answer(&gateway, &last()).await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains("retry-after") && refused.contains("application/problem+json"), "{refused}");

    let identity = Authority::new().issue("secure.test");
    let host = format!(
        "[[virtual_hosts]]\ndomain = \"secure.test\"\nenabled_backends_tag = \"all\"\nhttp_to_https = true\n\
         cert_file = \"{}\"\nkey_file = \"{}\"\n",
        identity.certificate_file().display(),
        identity.key_file().display()
    );
    let gateway = over(echo.address, "listen_addr = \"127.0.0.1:0\"\nhttps_port = 443", &host).await;
    let sent_away = answer(&gateway, &last().replace("Host: a", "Host: secure.test")).await;
    assert!(sent_away.starts_with("HTTP/1.1 308 "), "{sent_away}");
    assert!(sent_away.contains("https://secure.test/ws"), "{sent_away}");
}

#[tokio::test]
async fn bytes_after_a_refused_upgrade_are_no_request() {
    let origin = Origin::start().await;
    let gateway = over(origin.address(), "", "").await;
    for status in [400, 401, 426, 503, 200] {
        origin.behave(Behaviour::Status(status));
        origin.forget();
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        let head = raw::head(&mut client).await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
        // The client takes the tunnel for open and sends frames. The connection may be closed by now.
        let _ = client.write_all(REQUEST.as_bytes()).await;
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "{rest:?}");
        assert_eq!(origin.received().len(), 1);
    }
    origin.behave(Behaviour::Answer);
    // An upgrade request may follow another request in one segment. Bytes after the upgrade request itself are
    // refused.
    let ahead = answer(&gateway, &format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{}", last())).await;
    assert!(ahead.starts_with("HTTP/1.1 200 ") && ahead.contains("HTTP/1.1 101 "), "{ahead}");
    let early = answer(&gateway, &format!("{}\u{1}\u{1}", last())).await;
    assert!(early.starts_with("HTTP/1.1 400 ") && early.contains("did not wait"), "{early}");
    assert!(early.to_ascii_lowercase().contains("connection: close"), "{early}");
}

#[tokio::test]
async fn refusal_arrives_whole_and_later_bytes_are_no_request() {
    async fn refuses(mut stream: TcpStream) -> std::io::Result<()> {
        raw::head(&mut stream).await?;
        // The pause lets the client send more bytes.
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await?;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nno way").await
    }
    let gateway = over(raw::backend(refuses).await, "", "").await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(REQUEST.as_bytes()).await.unwrap();
    let hints = raw::head(&mut client).await.unwrap();
    assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    client.write_all(last().as_bytes()).await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 403 ") && rest.ends_with("no way"), "{rest}");
    assert_eq!(rest.matches("HTTP/1.1 ").count(), 1, "{rest}");
}

#[tokio::test]
async fn invalid_upgrade_requests_are_ordinary_requests() {
    async fn switches(mut stream: TcpStream) -> std::io::Result<()> {
        let head = raw::head(&mut stream).await?.to_ascii_lowercase();
        assert!(!head.contains("upgrade"), "{head}");
        stream.write_all(SWITCHED.as_bytes()).await
    }
    let origin = Origin::start().await;
    let gateway = over(origin.address(), "", "").await;
    let unasked = over(raw::backend(switches).await, "", "[retry]\nattempts = 1\n").await;
    for request in [
        REQUEST.replace("Upgrade: websocket", "Upgrade: h2c"),
        REQUEST.replace("Upgrade: websocket", "Upgrade: h2c, websocket"),
        REQUEST.replace("Connection: Upgrade\r\n", ""),
        REQUEST.replace("HTTP/1.1", "HTTP/1.0"),
        REQUEST.replace("GET", "POST").replace("Host: a", "Host: a\r\nContent-Length: 0"),
    ] {
        let request =
            request.replace("Connection: Upgrade", "Connection: Upgrade, close").replace("/ws", "/get");
        let request = if request.contains("Connection") {
            request
        } else {
            request.replace("Host: a", "Host: a\r\nConnection: close")
        };
        let got = answer(&gateway, &request).await;
        assert!(!got.starts_with("HTTP/1.1 101") && !got.starts_with("HTTP/1.1 5"), "{request}{got}");
        let received = origin.received().pop().unwrap();
        assert_eq!((received.header("upgrade"), received.header("connection")), ("", ""), "{request}");
        let got = answer(&unasked, &request).await;
        assert!(got.starts_with("HTTP/1.1 502 "), "nobody is switched who has not asked: {request}{got}");
    }
}

#[tokio::test]
async fn a_backend_of_http_1_0_cannot_switch() {
    async fn old(mut stream: TcpStream) -> std::io::Result<()> {
        raw::head(&mut stream).await?;
        stream.write_all(SWITCHED.replace("HTTP/1.1", "HTTP/1.0").as_bytes()).await?;
        stream.read_u8().await.map(|_| ())
    }
    let gateway = over(raw::backend(old).await, "", "[retry]\nattempts = 1\n").await;
    let got = answer(&gateway, REQUEST).await;
    assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("http_protocol_error"), "{got}");
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn a_backend_that_switches_to_something_else_does_not_switch() {
    async fn elsewhere(mut stream: TcpStream) -> std::io::Result<()> {
        raw::head(&mut stream).await?;
        stream.write_all(SWITCHED.replace("Upgrade: websocket", "Upgrade: h2c").as_bytes()).await?;
        stream.read_u8().await.map(|_| ())
    }
    let gateway = over(raw::backend(elsewhere).await, "", "[retry]\nattempts = 1\n").await;
    let got = answer(&gateway, REQUEST).await;
    assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("http_protocol_error"), "{got}");
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn upgrade_request_is_retried_until_answered() {
    let (dead, origin, bad) = (Origin::dead(), Origin::start().await, Origin::start().await);
    bad.behave(Behaviour::Reset);
    let busy = Origin::start().await;
    busy.behave(Behaviour::Status(503));
    let tables = "[health_check]\nenabled = false\n[retry]\nattempts = 4\non_status = [503]\n";
    let gateway = Gateway::start(&[&dead, &bad, &busy, &origin], Setup { tables, ..Setup::default() }).await;
    for _ in 0..4 {
        let mut socket = connect(&gateway).await;
        echoed(&mut socket, "hello".into()).await;
    }
    assert_eq!(origin.count("/ws"), 4);
}

#[tokio::test]
async fn request_timeout_bounds_the_time_until_the_switch() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Stall);
    let gateway = over(origin.address(), "request_timeout_secs = 1", "[retry]\nattempts = 1\n").await;
    let late = answer(&gateway, REQUEST).await;
    assert!(late.starts_with("HTTP/1.1 504 ") && late.contains("http_response_timeout"), "{late}");
    // The gateway must notice a client that leaves in the meantime.
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(REQUEST.as_bytes()).await.unwrap();
    eventually!(origin.count("/ws") == 2);
    drop(client);
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
    assert!(gateway.process.line(" 499 ").await.contains("/ws"));
}
