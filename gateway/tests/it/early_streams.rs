//! HTTP/2 responses to incomplete requests: from backends that do not wait for the rest, and to clients that
//! never send it.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use testkit::{DEADLINE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::frames::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, RST_STREAM, Wire, block};
use crate::support::{Gateway, Setup};

const CANCEL: u32 = 8;

/// End of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Body,
    Trailers,
    Head,
}

/// An HTTP/2 backend that answers a stream as soon as it has the head.
struct Hasty {
    address: SocketAddr,
    /// Frames that the backend has read, each with the number of its connection.
    seen: Arc<Mutex<Vec<(usize, Frame)>>>,
}

impl Hasty {
    async fn start(ends: Ends) -> Hasty {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let record = seen.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let record = record.clone();
                tokio::spawn(async move {
                    let mut wire = Wire::accept(stream).await;
                    while let Some(frame) = wire.next().await {
                        if frame.kind == HEADERS {
                            wire.send(&answer(frame.stream, ends)).await;
                        }
                        record.lock().push((connection, frame));
                    }
                });
            }
        });
        Hasty { address, seen }
    }

    fn count(&self, is_it: impl Fn(&Frame) -> bool) -> usize {
        self.seen.lock().iter().filter(|(_, frame)| is_it(frame)).count()
    }
}

fn answer(stream: u32, ends: Ends) -> Vec<Frame> {
    let head = |end| Frame::head(stream, &[(":status", "413")], end);
    let with_length = Frame::head(stream, &[(":status", "413"), ("content-length", "2")], false);
    let trailers = || Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, block(&[("x-sum", "1")]));
    match ends {
        Ends::Body => vec![with_length, Frame::new(DATA, END_STREAM, stream, *b"no")],
        Ends::Trailers => vec![head(false), Frame::new(DATA, 0, stream, *b"no"), trailers()],
        Ends::Head => vec![head(true)],
    }
}

async fn start(backend: &Hasty, tables: &str) -> Gateway {
    let tables = format!(
        "[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\nread_timeout_secs = 1\n\
         stream_idle_timeout_secs = 1\n{tables}"
    );
    Gateway::start_over(&[backend.address], Setup { proxy: "http2_cleartext = true", tables: &tables }).await
}

fn post(stream: u32, path: &str) -> Frame {
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    Frame::head(stream, &fields, false)
}

#[tokio::test]
async fn a_client_of_http1_has_its_answer_at_once_and_the_stream_ends() {
    for ends in [Ends::Body, Ends::Trailers] {
        let backend = Hasty::start(ends).await;
        let gateway = start(&backend, "").await;
        let cases = [
            ("Content-Length: 500", "0123456789"),
            ("Transfer-Encoding: chunked", "2\r\nab\r\n"),
            ("Expect: 100-continue\r\nContent-Length: 500", ""),
        ];
        for (i, (fields, body)) in cases.iter().enumerate() {
            let mut stream = TcpStream::connect(gateway.address).await.unwrap();
            let head = format!("POST /early-{i} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            while !answer.split_once("\r\n\r\n").is_some_and(|(_, body)| body.contains("no")) {
                let mut part = Vec::new();
                let read = timeout(DEADLINE, stream.read_buf(&mut part)).await.unwrap().unwrap();
                assert!(read > 0, "{fields}: {answer}");
                answer.push_str(&String::from_utf8_lossy(&part));
            }
            assert!(answer.starts_with("HTTP/1.1 413 "), "{fields}: {answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{fields}: {answer}");
            // The gateway must cancel the stream without waiting for the rest of the body.
            eventually!(backend.count(|frame| frame.kind == RST_STREAM && frame.reason() == CANCEL) == i + 1);
            let logged = gateway.process.line(&format!("POST /early-{i} 413 ")).await;
            assert!(!logged.contains("error="), "{logged}");
        }
        // All requests must share one connection.
        assert!(backend.seen.lock().iter().all(|(connection, _)| *connection == 0));
        let logged = gateway.process.output();
        assert!(!logged.contains("ERROR") && !logged.contains("WARN pingora"), "{logged}");
    }
}

#[tokio::test]
async fn http2_client_body_stops_after_early_response() {
    let backend = Hasty::start(Ends::Body).await;
    let gateway = start(&backend, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(&[post(1, "/early")]).await;
    assert_eq!(wire.status(1).await, 413);
    assert!(wire.find(|frame| frame.stream == 1 && frame.is_end()).await.is_some());
    eventually!(gateway.metric("proxy_backend_requests_active").await == 0.0);
    wire.send(&[Frame::new(DATA, END_STREAM, 1, *b"the rest")]).await;
    let logged = gateway.process.line("POST /early 413 ").await;
    assert!(!logged.contains("error="), "{logged}");
    eventually!(backend.count(|frame| frame.kind == RST_STREAM) == 1);
    assert_eq!(backend.count(|frame| frame.kind == DATA), 0);
}

#[tokio::test]
async fn connection_with_unfinished_request_ends_and_no_other() {
    for ends in [Ends::Body, Ends::Trailers, Ends::Head] {
        let backend = Hasty::start(ends).await;
        let gateway = start(&backend, "[limits]\nbody_timeout_secs = 1\n").await;
        let mut fair = Wire::connect(gateway.address).await;
        let mut other = Wire::connect(gateway.address).await;
        for (wire, path) in [(&mut fair, "/fair"), (&mut other, "/other")] {
            wire.send(&[post(1, path)]).await;
            assert_eq!(wire.status(1).await, 413, "{ends:?}");
        }
        fair.send(&[Frame::reset(1, CANCEL)]).await;
        other.ended().await;
        eventually!(gateway.metric("proxy_requests_active").await == 0.0);
        let logged = gateway.process.line("POST /other 413 ").await;
        assert!(ends == Ends::Head || !logged.contains("error="), "{logged}");
        // The body timeout of the first stream would have ended this connection before now.
        fair.send(&[post(3, "/next")]).await;
        assert!(fair.find(|frame| frame.stream == 3 && frame.kind == HEADERS).await.is_some(), "{ends:?}");
    }
}
