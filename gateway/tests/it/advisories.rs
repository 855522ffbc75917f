//! Security advisories about earlier releases of Pingora, tried on this gateway. Each test is named after what
//! must not happen. Tests for the HTTP/2 advisories are in `http2/floods.rs`.
//!
//! The gateway answers requests for `/smuggled` itself. If such a request reaches the backend, it was smuggled
//! past the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use testkit::exchange;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Gateway, Setup};

/// A request that must never reach a backend.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A backend that answers each head with 200, reads no bodies, and records every byte.
struct Recorder {
    address: SocketAddr,
    heard: Arc<Mutex<String>>,
}

impl Recorder {
    async fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<String>>::default();
        let keep = heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, keep.clone()));
            }
        });
        Recorder { address, heard }
    }

    /// Returns all bytes received since the last call, in lower case.
    fn heard(&self) -> String {
        std::mem::take(&mut *self.heard.lock()).to_ascii_lowercase()
    }
}

async fn answer(mut stream: TcpStream, heard: Arc<Mutex<String>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let heads = text.matches("\r\n\r\n").count();
        heard.lock().push_str(&text);
        for _ in 0..heads.min(1) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    }
}

/// Starts a gateway that redirects requests for `/smuggled`.
async fn guarding(backend: SocketAddr) -> Gateway {
    let tables = "[health_check]\nenabled = false\n[retry]\nattempts = 1\n";
    let config = crate::support::config(&[backend], Setup { proxy: "keepalive_timeout_secs = 1", tables });
    let guard = "enabled_backends_tag = \"all\"\n[[virtual_hosts.routes]]\npath = \"/smuggled\"\nredirect = \"/no\"\n";
    Gateway::start_with_config(&config.replace("enabled_backends_tag = \"all\"\n", guard)).await
}

/// CVE-2025-4366 (RUSTSEC-2025-0037): the gateway answers a request before its body was read.
#[tokio::test]
async fn a_body_that_nobody_read_is_not_the_next_request() {
    let backend = Recorder::start().await;
    let gateway = guarding(backend.address).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = hidden.len();
    for framed in [
        format!("Content-Length: {length}\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
    ] {
        let request = format!("POST /smuggled HTTP/1.1\r\nHost: a\r\n{framed}");
        let answers = exchange(gateway.address, request.as_bytes()).await;
        assert!(answers.starts_with("HTTP/1.1 308 "), "{request}\n{answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{request}\n{answers}");
        assert_eq!(backend.heard(), "", "{request}");
    }
}

/// CVE-2026-2833 (RUSTSEC-2026-0033): bytes after an Upgrade request are no tunnel until the backend agrees with 101.
#[tokio::test]
async fn bytes_after_an_upgrade_request_do_not_bypass_the_gateway() {
    let backend = Recorder::start().await;
    let gateway = guarding(backend.address).await;
    let websocket = "websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for protocol in ["foo", "h2c", "websocket", websocket] {
        for more in ["", "Content-Length: 0\r\n"] {
            let head = format!(
                "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{more}\r\n"
            );
            let answers = exchange(gateway.address, format!("{head}{SMUGGLED}").as_bytes()).await;
            assert!(!answers.contains("HTTP/1.1 101 "), "{head}{answers}");
            let heard = backend.heard();
            assert!(!heard.contains("/smuggled"), "{head}{heard}");
        }
    }
}

/// CVE-2026-2835 (RUSTSEC-2026-0034): the body of an HTTP/1.0 message, and of a message with an invalid
/// Transfer-Encoding.
#[tokio::test]
async fn nobody_disagrees_with_the_backend_where_a_body_ends() {
    let backend = Recorder::start().await;
    let gateway = guarding(backend.address).await;
    let chunked = format!("0\r\n\r\n{SMUGGLED}");
    let keep = "Connection: keep-alive\r\n";
    let mut requests = vec![
        format!("POST /x HTTP/1.0\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("POST /x HTTP/1.0\r\nHost: a\r\n{keep}\r\n{SMUGGLED}"),
        format!("POST /x HTTP/1.0\r\nHost: a\r\n{keep}Transfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!(
            "GET /x HTTP/1.0\r\nHost: a\r\n{keep}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{chunked}"
        ),
    ];
    for coding in [
        "identity",
        "xchunked",
        "chunked, identity",
        "chunked, chunked",
        "identity, chunked",
        "gzip, chunked",
        "\u{b}chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nContent-Length: 5",
        "x\r\nContent-Length: 44",
    ] {
        requests.push(format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n{chunked}"));
    }
    for request in requests {
        let answers = exchange(gateway.address, request.as_bytes()).await;
        let heard = backend.heard();
        assert!(!heard.contains("/smuggled"), "{request}\n{heard}\n{answers}");
        let framings: Vec<_> = heard
            .lines()
            .filter(|line| line.starts_with("transfer-encoding:") || line.starts_with("content-length:"))
            .map(|line| line.replace(' ', ""))
            .collect();
        let clear = framings
            .iter()
            .all(|framing| framing == "transfer-encoding:chunked" || framing.starts_with("content-length:"));
        assert!(clear && framings.len() <= 1, "{request}\n{heard}\n{answers}");
    }
}

/// CVE-2026-105299: the gateway removes fields that `Connection` names. A client must not use this to remove
/// the fields that the gateway adds.
#[tokio::test]
async fn connection_options_remove_no_field_of_the_gateway() {
    let backend = Recorder::start().await;
    let gateway = guarding(backend.address).await;
    let private = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close, X-Private\r\nX-Private: mine\r\nKeep-Alive: 5\r\n\r\n";
    let answer = exchange(gateway.address, private.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let heard = backend.heard();
    assert!(!heard.contains("x-private") && !heard.contains("keep-alive"), "{heard}");

    for name in [
        "X-Forwarded-For",
        "x-forwarded-for",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Real-IP",
        "X-Request-Id",
        "Via",
        "Host",
        "\"X-Forwarded-For\"",
        "X-Forwarded-For;",
        "@",
    ] {
        let request = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close, {name}\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
        );
        let answer = exchange(gateway.address, request.as_bytes()).await;
        let heard = backend.heard();
        if heard.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 4"), "{request}{answer}");
            continue;
        }
        assert!(!heard.contains("6.6.6.6"), "{request}{heard}");
        for field in [
            "host: a",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-request-id: ",
            "via: 1.1 gateway",
        ] {
            assert!(heard.contains(&format!("\r\n{field}")), "{request}{heard}");
        }
    }
}

#[test]
fn the_tests_that_the_security_page_names_are_there() {
    let page = include_str!("../../../.github/SECURITY.md");
    let tests = concat!(include_str!("advisories.rs"), include_str!("http2/floods.rs"));
    let named: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("| CVE-")?.rsplit('`').nth(1)).collect();
    assert_eq!(named.len(), 6, "{named:?}");
    for test in named {
        assert!(tests.contains(&format!("async fn {test}()")), "{test}");
    }
}
