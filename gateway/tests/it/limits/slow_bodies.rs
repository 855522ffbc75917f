//! Slow request bodies, and bodies that only seem to be slow.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use http::Request;
use testkit::{DEADLINE, Origin, POLL};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::{met, start};
use crate::frames::{DATA, Frame, Wire};
use crate::grpc::service::Echo;
use crate::h2_peers::connect;
use crate::support::{Gateway, Setup};

/// A body timeout of one second. Every 1 000 bytes received extend it by a second.
const SLOW: &str = "[limits]\nbody_timeout_secs = 1\nmin_body_bytes_per_sec = 1000\n";

fn post(length: usize, fields: &str) -> String {
    format!("POST /anything HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{fields}\r\n")
}

/// Sends one byte after the other until the gateway responds, and returns the whole response.
async fn drip(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let dripping = async {
        loop {
            match timeout(5 * POLL, stream.read_buf(&mut answer)).await {
                Err(_) if stream.write_all(b"x").await.is_ok() => {}
                Ok(Ok(1..)) => {}
                _ => return,
            }
        }
    };
    timeout(DEADLINE, dripping).await.unwrap_or_else(|_| panic!("it is never over"));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn stopped_or_dripping_body_gets_408_and_spares_the_backend() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "", &format!("{SLOW}[circuit_breaker]\nconsecutive_failures = 1\n")).await;
    let stopped = testkit::exchange(gateway.address, format!("{}x", post(10, "")).as_bytes()).await;
    assert!(stopped.starts_with("HTTP/1.1 408 "), "{stopped}");
    assert!(stopped.contains("\r\nConnection: close\r\n"), "{stopped}");
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(post(100_000, "").as_bytes()).await.unwrap();
    let dripped = drip(stream).await;
    assert!(dripped.starts_with("HTTP/1.1 408 "), "{dripped}");
    assert_eq!(met(&gateway, "body_rate").await, 2.0);
    assert!(origin.received().iter().all(|request| request.body.is_empty()));
    assert_eq!(gateway.metric("proxy_circuit_opened_total").await, 0.0);
}

#[tokio::test]
async fn slow_http2_body_ends_its_stream_only() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "", &format!("{SLOW}[upstream]\nread_timeout_secs = 1\n")).await;
    let mut wire = Wire::connect(gateway.address).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/anything")];
    // The first stream sends nothing more, the second one sends byte by byte.
    wire.send(&[Frame::head(1, &head, false), Frame::head(3, &head, false)]).await;
    let mut ended = [false; 2];
    let dripping = async {
        while ended != [true; 2] {
            match timeout(20 * POLL, wire.next()).await {
                Err(_) if !ended[1] => {
                    wire.send(&[Frame::new(DATA, 0, 3, *b"x")]).await;
                }
                Err(_) => {}
                Ok(frame) => {
                    let frame = frame.unwrap();
                    ended[0] |= frame.stream == 1 && frame.is_end();
                    ended[1] |= frame.stream == 3 && frame.is_end();
                }
            }
        }
    };
    timeout(2 * DEADLINE, dripping).await.unwrap();
    assert_eq!(met(&gateway, "body_rate").await, 2.0);
    wire.send(&[Frame::head(5, &crate::frames::get("a"), true)]).await;
    assert_eq!(wire.status(5).await, 200);
}

/// Starts a backend that waits before it sends `first`. It answers after it has read the whole body.
async fn slow_backend(first: &'static str, wait: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                sleep(wait).await;
                stream.write_all(first.as_bytes()).await.unwrap();
                let mut seen = Vec::new();
                while !seen.ends_with(b"the end") {
                    if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            });
        }
    });
    address
}

/// Twice the body timeout.
const LONG: Duration = Duration::from_secs(2);

async fn over(backend: SocketAddr) -> Gateway {
    let tables = format!("[health_check]\nenabled = false\n{SLOW}");
    let setup = Setup { proxy: "http2_cleartext = true", tables: &tables };
    Gateway::start_over(&[backend], setup).await
}

#[tokio::test]
async fn slow_backend_does_not_count_as_a_slow_client() {
    let gateway = over(slow_backend("", LONG).await).await;
    // The body is larger than the buffers between client and backend.
    let body = [vec![b'x'; 9_000_000], b"the end".to_vec()].concat();
    let request = [post(body.len(), "Connection: close\r\n").into_bytes(), body.clone()].concat();
    let answer = testkit::exchange(gateway.address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut client = connect(gateway.address).await.ready().await.unwrap();
    let request = Request::post("http://web.test/").header("content-length", body.len()).body(()).unwrap();
    let (answer, mut sending) = client.send_request(request, false).unwrap();
    let uploading = async {
        for part in body.chunks(50_000) {
            sending.reserve_capacity(part.len());
            while sending.capacity() < part.len() {
                poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
            }
            sending.send_data(Bytes::copy_from_slice(part), false).unwrap();
        }
        sending.send_data(Bytes::new(), true).unwrap();
        answer.await.unwrap().status()
    };
    assert_eq!(timeout(2 * DEADLINE, uploading).await.unwrap(), 200);
    assert_eq!(met(&gateway, "body_rate").await, 0.0);
}

#[tokio::test]
async fn client_that_waits_for_100_is_not_slow() {
    let gateway = over(slow_backend("HTTP/1.1 100 Continue\r\n\r\n", LONG).await).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = post(7, "Connection: close\r\nExpect: 100-continue\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(timeout(DEADLINE, stream.read_buf(&mut answer)).await.unwrap().unwrap(), 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 100 "));
    let answer = testkit::exchange_over(stream, b"the end").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    // A client that gets 100 (Continue) and then sends nothing is slow.
    let silent = testkit::exchange(gateway.address, head.as_bytes()).await;
    assert!(silent.starts_with("HTTP/1.1 100 ") && silent.contains("HTTP/1.1 408 "), "{silent}");
}

#[tokio::test]
async fn a_stream_of_grpc_may_be_silent() {
    let echo = Echo::start().await;
    let tables = format!("[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\n{SLOW}");
    let setup = Setup { proxy: "http2_cleartext = true", tables: &tables };
    let gateway = Gateway::start_over(&[echo.address], setup).await;
    let mut calls = crate::grpc::client::client(gateway.address).await;
    let (say, said) = futures::channel::mpsc::unbounded();
    let mut answers = calls.chat(said).await.unwrap();
    for message in ["one", "two"] {
        sleep(LONG).await;
        say.unbounded_send(message.to_owned()).unwrap();
        assert!(answers.message().await.unwrap().unwrap().contains(message));
    }
}
