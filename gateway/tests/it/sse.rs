//! Server-sent events must pass as they arrive: over HTTP/1.1 and HTTP/2, with every framing of the body, and
//! with long pauses.

use std::time::{Duration, Instant};

use testkit::{DEADLINE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::frames::{DATA, Frame, Wire};
use crate::support::Gateway;
use crate::websocket::{over, raw};

/// Framing of a response's body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Chunked,
    Length,
    Close,
}

const EVENTS: [&str; 4] =
    ["data: one\n\n", ": heartbeat\n\n", "id: 2\ndata: two\ndata: lines\n\n", "retry: 10\n\n"];

/// Starts a backend that sends an event only when the test asks for it. A gateway that waited for the next
/// event would never pass this one on.
async fn backend(framing: Framing) -> (std::net::SocketAddr, UnboundedSender<()>) {
    let (next, told) = unbounded_channel();
    let told = std::sync::Arc::new(tokio::sync::Mutex::new(told));
    let serve = move |stream: TcpStream| {
        let told = told.clone();
        async move { send(stream, framing, &mut *told.lock().await).await }
    };
    (raw::backend(serve).await, next)
}

async fn send(
    mut stream: TcpStream,
    framing: Framing,
    told: &mut UnboundedReceiver<()>,
) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    let length: usize = EVENTS.iter().map(|event| event.len()).sum();
    let field = match framing {
        Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Framing::Length => format!("Content-Length: {length}\r\n"),
        Framing::Close => String::new(),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{field}\r\n");
    stream.write_all(head.as_bytes()).await?;
    for event in EVENTS {
        told.recv().await;
        let event = match framing {
            Framing::Chunked => format!("{:x}\r\n{event}\r\n", event.len()),
            _ => event.to_owned(),
        };
        stream.write_all(event.as_bytes()).await?;
    }
    if framing == Framing::Chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

async fn ask(gateway: &Gateway, fields: &str) -> TcpStream {
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let request = format!("GET /events HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

const ACCEPT: &str = "Accept: text/event-stream\r\n";

/// Reads until the received text contains `expected`.
async fn read_until(client: &mut TcpStream, expected: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(expected) {
            read.push(client.read_u8().await.unwrap());
        }
    };
    let is_there = timeout(DEADLINE, reading).await.is_ok();
    let read = String::from_utf8_lossy(&read).into_owned();
    assert!(is_there, "no {expected:?} in {read:?}");
    read
}

#[tokio::test]
async fn event_by_event_over_http1() {
    for framing in [Framing::Chunked, Framing::Length, Framing::Close] {
        let (address, next) = backend(framing).await;
        let gateway = over(address, "", "").await;
        let mut client = ask(&gateway, ACCEPT).await;
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{framing:?}: {head}");
        for event in EVENTS {
            next.send(()).unwrap();
            read_until(&mut client, event).await;
        }
    }
}

#[tokio::test]
async fn event_by_event_over_http2() {
    for framing in [Framing::Chunked, Framing::Length, Framing::Close] {
        let (address, next) = backend(framing).await;
        let gateway = over(address, "http2_cleartext = true", "").await;
        let mut wire = Wire::connect(gateway.address).await;
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/events"),
            (":authority", "a"),
            ("accept", "text/event-stream"),
        ];
        assert!(wire.send(&[Frame::head(1, &fields, true)]).await);
        assert_eq!(wire.status(1).await, 200);
        for event in EVENTS {
            next.send(()).unwrap();
            let mut got = Vec::new();
            while got.len() < event.len() {
                let frame = wire.find(|frame| frame.kind == DATA).await.unwrap();
                got.extend(frame.payload);
            }
            assert_eq!(String::from_utf8_lossy(&got), event, "{framing:?}");
        }
    }
}

#[tokio::test]
async fn requested_event_stream_may_be_silent() {
    let tables = "[upstream]\nread_timeout_secs = 1\n[retry]\nattempts = 1\n";
    for (fields, may_be_silent) in [
        (ACCEPT, true),
        ("Accept: application/json, text/event-stream;q=0.9\r\n", true),
        ("Accept: */*\r\n", false),
    ] {
        let (address, next) = backend(Framing::Chunked).await;
        let gateway = over(address, "request_timeout_secs = 1", tables).await;
        let mut client = ask(&gateway, fields).await;
        next.send(()).unwrap();
        read_until(&mut client, EVENTS[0]).await;
        // The pause is longer than the read timeout. The test can only wait, because no event marks its end.
        sleep(Duration::from_millis(2_200)).await;
        next.send(()).unwrap();
        if may_be_silent {
            read_until(&mut client, EVENTS[1]).await;
        } else {
            let mut rest = Vec::new();
            let _ = timeout(DEADLINE, client.read_to_end(&mut rest)).await.unwrap();
            assert!(!String::from_utf8_lossy(&rest).contains(EVENTS[1]), "{fields}");
        }
    }
}

#[tokio::test]
async fn event_stream_ends_after_idle_timeout_or_with_its_client() {
    let (address, next) = backend(Framing::Chunked).await;
    let gateway = over(address, "", "[upstream]\nstream_idle_timeout_secs = 1\n").await;
    let mut client = ask(&gateway, ACCEPT).await;
    next.send(()).unwrap();
    read_until(&mut client, EVENTS[0]).await;
    let since = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, client.read_to_end(&mut rest)).await.unwrap();
    assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a stream that was cut must not look whole");

    let (address, next) = backend(Framing::Chunked).await;
    let gateway = over(address, "", "").await;
    let mut client = ask(&gateway, ACCEPT).await;
    next.send(()).unwrap();
    read_until(&mut client, EVENTS[0]).await;
    drop(client);
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
    eventually!(gateway.metric("proxy_backend_requests_active{backend=\"origin-0\"}").await == 0.0);
}
