//! Idle connections: each closes after `keepalive_timeout_secs`, in every state.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::future::join_all;
use testkit::tls::{Authority, Identity, handshake};
use testkit::{DEADLINE, Origin};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Gateway, Setup};
use crate::tls::{config, shows};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: web.test\r\n\r\n";
const IDLE: Duration = Duration::from_secs(2);
/// Tolerance, because the gateway counts whole milliseconds.
const ROUNDED: Duration = Duration::from_millis(2);

trait Connection: AsyncRead + AsyncWrite + Send {}
impl<C: AsyncRead + AsyncWrite + Send> Connection for C {}

/// Opens a connection and sends `said`. Returns the bytes received until the connection ends, and the time that took.
///
/// The time starts before the connection is opened, because the gateway may accept it long before a busy client
/// continues.
async fn until_closed(gateway: &Gateway, kind: &str, said: &str) -> (String, Duration) {
    let start = Instant::now();
    let mut connection = open(gateway, kind).await;
    connection.write_all(said.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    // Over TLS, a close without close_notify would be an error here.
    timeout(4 * DEADLINE, connection.read_to_end(&mut heard)).await.unwrap().unwrap();
    (String::from_utf8_lossy(&heard).into_owned(), start.elapsed())
}

/// Starts a gateway with and without TLS and an idle timeout of two seconds. With less time, a busy client
/// might not send its request before the timeout.
async fn gateway(proxy: &str) -> (Origin, Identity, Gateway) {
    with_idle_time(2, proxy).await
}

async fn with_idle_time(secs: u32, proxy: &str) -> (Origin, Identity, Gateway) {
    let (origin, identity) = (Origin::start().await, Authority::new().issue("web.test"));
    let proxy = format!("keepalive_timeout_secs = {secs}\n{proxy}");
    let config = config(origin.address(), &proxy, &[shows("web.test", &identity)]);
    let gateway = Gateway::start_with_config(&config).await;
    (origin, identity, gateway)
}

async fn open(gateway: &Gateway, kind: &str) -> Pin<Box<dyn Connection>> {
    match kind {
        "plain" => Box::pin(TcpStream::connect(gateway.address).await.unwrap()),
        alpn => {
            let wire = [&[u8::try_from(alpn.len()).unwrap()], alpn.as_bytes()].concat();
            let stream =
                handshake(gateway.https().await, Some("web.test"), |builder| builder.set_alpn_protos(&wire));
            Box::pin(stream.await.unwrap())
        }
    }
}

#[tokio::test]
async fn idle_connection_closes_after_keepalive_timeout() {
    for proxy in ["", "http2_cleartext = true"] {
        let (_origin, _identity, gateway) = gateway(proxy).await;
        let cases = [
            ("", 0),
            ("\r\n", 0),
            ("\r\n\r\n", 0),
            (REQUEST, 1),
            ("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n\r\n", 1),
        ];
        let all = ["plain", "http/1.1"].into_iter().flat_map(|kind| cases.map(|case| (kind, case)));
        let over = &gateway;
        let all = all.map(|(kind, (said, answers))| async move {
            let (heard, took) = until_closed(over, kind, said).await;
            assert_eq!(heard.matches("HTTP/1.1 200 ").count(), answers, "{kind} {said:?}: {heard}");
            assert_eq!(heard.matches("HTTP/1.1 ").count(), answers, "{kind} {said:?}: {heard}");
            assert!(took + ROUNDED >= IDLE, "{kind} {said:?}: closed after {took:?}");
        });
        join_all(all).await;
        let said = gateway.process.output();
        assert!(!said.contains("ERROR"), "what clients leave undone is no error: {said}");
    }
}

#[tokio::test]
async fn a_head_that_begins_late_is_not_cut_off_by_the_idle_timeout() {
    for proxy in ["", "http2_cleartext = true"] {
        let proxy = format!("{proxy}\nheader_timeout_secs = 4");
        let (_origin, _identity, gateway) = gateway(&proxy).await;
        let all =
            ["plain", "http/1.1"].into_iter().flat_map(|kind| ["", REQUEST].map(|before| (kind, before)));
        let over = &gateway;
        let all = all.map(|(kind, before)| async move {
            // The client sends the first line of the head only.
            let said = format!("{before}GET / HTTP/1.1\r\n");
            let (heard, took) = until_closed(over, kind, &said).await;
            assert!(heard.contains("HTTP/1.1 408 "), "{kind} {said:?}: {heard}");
            assert!(took + ROUNDED >= 2 * IDLE, "{kind} {said:?}: closed after {took:?}");
        });
        join_all(all).await;
    }
}

#[tokio::test]
async fn unfinished_http2_preface_gets_408() {
    let (_origin, _identity, gateway) = gateway("http2_cleartext = true\nheader_timeout_secs = 1").await;
    let (heard, _) = until_closed(&gateway, "plain", "PRI * HT").await;
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
}

#[tokio::test]
async fn the_timeout_changes_while_the_gateway_serves() {
    let origin = Origin::start().await;
    let with = |proxy| crate::support::config(&[origin.address()], Setup { proxy, ..Setup::default() });
    let gateway = Gateway::start_with_config(&with("keepalive_timeout_secs = 3600")).await;
    gateway.edit(&with("keepalive_timeout_secs = 2"));
    testkit::eventually!(gateway.read("/config").await["proxy"]["keepalive_timeout_secs"] == 2);
    let (heard, _) = until_closed(&gateway, "plain", "").await;
    assert_eq!(heard, "");
}

/// Maximum memory of an idle connection that has served a request, in KiB. The program that is tested is not optimised;
/// `make bench` measures the real one.
const IDLE_MEMORY: [(&str, u64); 2] = [("plain", 16), ("http/1.1", 40)];

#[tokio::test]
async fn idle_connection_takes_little_memory() {
    const CONNECTIONS: u64 = 400;
    let (_origin, _identity, gateway) = with_idle_time(600, "").await;
    for (kind, most) in IDLE_MEMORY {
        let mut idle = Vec::new();
        let mut before = 0;
        // The first connections also fill pools that all connections share.
        for number in 0..2 * CONNECTIONS {
            if number == CONNECTIONS {
                before = gateway.memory();
            }
            let mut connection = open(&gateway, kind).await;
            connection.write_all(REQUEST.as_bytes()).await.unwrap();
            let mut heard = vec![0; 4096];
            let read = timeout(DEADLINE, connection.read(&mut heard)).await.unwrap().unwrap();
            assert!(heard[..read].starts_with(b"HTTP/1.1 200 "), "{kind}");
            idle.push(connection);
        }
        let each = gateway.memory().saturating_sub(before) / CONNECTIONS;
        assert!(each <= most, "{kind}: {each} KiB for each connection");
    }
}
