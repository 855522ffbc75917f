//! Backends that answer before they have the whole request. The rest of the request must not become another
//! client's request, and the client must get its response.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use testkit::{DEADLINE, converse, eventually, exchange};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::frames::{DATA, END_STREAM, Frame, HEADERS, Wire};
use crate::support::{Gateway, Setup};

/// A backend that answers as soon as it has a head, and reads the bytes that follow as the next request. For
/// `/echo`, it sends the body back while it reads.
struct Hasty {
    address: SocketAddr,
    /// Request lines that the backend has read, each with the number of its connection.
    seen: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Hasty {
    async fn start() -> Hasty {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let record = seen.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(answer(stream, connection, record.clone()));
            }
        });
        Hasty { address, seen }
    }

    /// Returns the connection of the first request line that contains `part`.
    fn connection_of(&self, part: &str) -> usize {
        let seen = self.seen.lock();
        let found = seen.iter().find(|(_, line)| line.contains(part));
        found.unwrap_or_else(|| panic!("no {part} in {seen:?}")).0
    }

    /// Returns the request lines of all connections in order of arrival.
    fn lines(&self) -> Vec<String> {
        self.seen.lock().iter().map(|(_, line)| line.clone()).collect()
    }
}

async fn answer(stream: TcpStream, connection: usize, seen: Arc<Mutex<Vec<(usize, String)>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let mut head = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        seen.lock().push((connection, line.trim_end().to_owned()));
        while !head.ends_with("\r\n\r\n") && head != "\r\n" {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let answered = if line.contains("/echo") {
            echo(&mut stream, &head).await
        } else if line.contains("/smuggled") {
            // No response, because an unexpected response would also close the connection.
            Ok(())
        } else if line.contains(" /leaves") {
            let leaves = "Connection: keep-alive\r\nConnection: x, close";
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{leaves}\r\nContent-Length: 2\r\n\r\nok").as_bytes())
                .await
        } else if line.starts_with("POST") {
            stream.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno").await
        } else {
            let body = format!("saw {}", line.split(' ').nth(1).unwrap_or_default());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await
        };
        if answered.is_err() {
            return;
        }
    }
}

/// Sends each part of the body back as soon as it arrives.
async fn echo(stream: &mut BufReader<TcpStream>, head: &str) -> std::io::Result<()> {
    let length = head.to_ascii_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length:").and_then(|length| length.trim().parse::<usize>().ok())
    });
    let mut left = length.unwrap_or_default();
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let mut part = [0; 64];
    while left > 0 {
        let read = stream.read(&mut part[..left.min(64)]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= read;
        stream.write_all(format!("{read:x}\r\n").as_bytes()).await?;
        stream.write_all(&part[..read]).await?;
        stream.write_all(b"\r\n").await?;
    }
    stream.write_all(b"0\r\n\r\n").await
}

async fn start(backend: &Hasty) -> Gateway {
    let tables = "[health_check]\nenabled = false\n[circuit_breaker]\nconsecutive_failures = 1\n";
    Gateway::start_over(&[backend.address], Setup { proxy: "http2_cleartext = true", tables }).await
}

/// Sends a GET of `path`. The backend must receive it as a request on its own, on another connection than `before`.
async fn next_is_whole(gateway: &Gateway, backend: &Hasty, path: &str, before: &str) {
    assert_eq!(gateway.get(path).await.text(), format!("saw {path}"));
    assert_ne!(backend.connection_of(path), backend.connection_of(before));
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn rest_of_refused_request_is_not_the_next_request() {
    let backend = Hasty::start().await;
    let gateway = start(&backend).await;
    let length = SMUGGLED.len();
    let chunk = format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    let cases = [
        (format!("Content-Length: {length}\r\n"), SMUGGLED.to_owned()),
        (format!("Content-Length: {}\r\n", length + 100), SMUGGLED.to_owned()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), chunk.clone()),
        (format!("Expect: 100-continue\r\nContent-Length: {length}\r\n"), SMUGGLED.to_owned()),
        ("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n".to_owned(), chunk),
    ];
    for (i, (fields, body)) in cases.iter().enumerate() {
        let head = format!("POST /refused-{i} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let answer = converse(gateway.address, &[&head, body]).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("\r\n\r\nno"), "{fields}: {answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{fields}: {answer}");
        next_is_whole(&gateway, &backend, &format!("/next-{i}"), &format!("/refused-{i} ")).await;
        // The response is complete, so the log must not report an error of the client or the backend.
        let logged = gateway.process.line(&format!("POST /refused-{i} 413 ")).await;
        assert!(!logged.contains("error=") && logged.contains("backend="), "{logged}");
    }
    assert!(!backend.lines().iter().any(|line| line.contains("smuggled")), "{:?}", backend.lines());
    assert!(!gateway.process.output().contains("ERROR"), "{}", gateway.process.output());
}

#[tokio::test]
async fn body_sent_without_waiting_for_100_is_not_the_next_request() {
    let backend = Hasty::start().await;
    let gateway = start(&backend).await;
    let length = SMUGGLED.len();
    let head =
        format!("POST /refused HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}");
    // The body may have reached the backend before it refuses the request. This backend reads the body as a request.
    let answer = exchange(gateway.address, format!("{head}\r\n\r\n{SMUGGLED}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    next_is_whole(&gateway, &backend, "/next", "/refused").await;
}

#[tokio::test]
async fn a_client_that_goes_on_sending_has_its_answer() {
    let backend = Hasty::start().await;
    let gateway = start(&backend).await;
    let size = 9 * 1024 * 1024;
    let head = format!("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let sending = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b'x'; size]).await
    };
    timeout(DEADLINE, sending).await.unwrap().unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("no"), "{answer}");
    next_is_whole(&gateway, &backend, "/next", "/refused").await;
}

#[tokio::test]
async fn early_response_may_need_the_rest_of_the_request() {
    let backend = Hasty::start().await;
    let gateway = start(&backend).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut has = String::new();
    let mut buffer = [0; 1024];
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n").await.unwrap();
    for part in ["first", "other", "final"] {
        stream.write_all(part.as_bytes()).await.unwrap();
        while !has.contains(part) {
            let read = timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(read > 0, "{part}: {has}");
            has.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
    timeout(DEADLINE, stream.read_to_string(&mut has)).await.unwrap().unwrap();
    assert!(has.ends_with("0\r\n\r\n"), "{has}");
    // The backend has read the whole body. It may still have answered early by mistake, so its connection is
    // not reused.
    next_is_whole(&gateway, &backend, "/next", "/echo").await;
}

#[tokio::test]
async fn backend_that_announces_close_gets_no_second_request() {
    let backend = Hasty::start().await;
    let gateway = start(&backend).await;
    for path in ["/leaves-0", "/leaves-1"] {
        assert_eq!(gateway.get(path).await.text(), "ok");
        // The backend announces a close but keeps its connection open.
        next_is_whole(&gateway, &backend, &format!("/after{path}"), &format!("GET {path}")).await;
    }
}

#[tokio::test]
async fn rest_of_refused_http2_request_is_not_the_next_request() {
    let backend = Hasty::start().await;
    let gateway = start(&backend).await;
    let mut wire = Wire::connect(gateway.address).await;
    let length = SMUGGLED.len().to_string();
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/refused"),
        ("content-length", &length),
    ];
    wire.send(&[Frame::head(1, &head, false)]).await;
    assert_eq!(wire.status(1).await, 413);
    assert!(wire.find(|frame| frame.stream == 1 && frame.is_end()).await.is_some());
    // The request to the backend must end, although the client may still send.
    eventually!(gateway.metric("proxy_backend_requests_active").await == 0.0);
    wire.send(&[Frame::new(DATA, END_STREAM, 1, SMUGGLED)]).await;
    gateway.process.line("POST /refused 413 ").await;
    next_is_whole(&gateway, &backend, "/next", "/refused").await;
    let path = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/other")];
    wire.send(&[Frame::head(3, &path, true)]).await;
    assert!(wire.find(|frame| frame.stream == 3 && frame.kind == HEADERS).await.is_some());
    assert!(!backend.lines().iter().any(|line| line.contains("smuggled")), "{:?}", backend.lines());
}
