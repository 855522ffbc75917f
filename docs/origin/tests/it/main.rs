//! Tests of every path of the origin, over real sockets.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Request;
use testkit::{Client, Process, exchange};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// Starts an instance called A, and returns its task and its address.
async fn start() -> (JoinHandle<std::io::Result<()>>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (tokio::spawn(origin::serve(listener, origin::app("A"))), address)
}

#[tokio::test]
async fn every_response_names_its_instance() {
    let (_origin, address) = start().await;
    let answer = Client::new().get(format!("http://{address}/")).await;
    assert_eq!((answer.text().as_str(), answer.header("x-origin")), ("hello from origin A\n", "A"));
    let missing = Client::new().get(format!("http://{address}/nothing")).await;
    assert_eq!((missing.status.as_u16(), missing.header("x-origin")), (404, "A"));
}

#[tokio::test]
async fn anything_echoes_the_request() {
    let (_origin, address) = start().await;
    let request = Request::put(format!("http://{address}/anything/a/b?c=d&e"))
        .header("X-One", "1")
        .header("X-Two", "1")
        .header("X-Two", "2")
        .body(Bytes::from("hello"))
        .unwrap();
    let echo = Client::new().send(request).await.json();
    assert_eq!(echo["origin"], "A");
    assert_eq!(echo["method"], "PUT");
    assert_eq!(echo["path"], "/anything/a/b");
    assert_eq!(echo["query"], "c=d&e");
    assert_eq!(echo["body"], "hello");
    assert_eq!(echo["headers"]["x-one"], "1");
    assert_eq!(echo["headers"]["x-two"][1], "2");
}

#[tokio::test]
async fn statuses_delays_bytes_and_streams_match_the_request() {
    let (_origin, address) = start().await;
    let client = Client::new();
    let get = |path: &'static str| {
        let (client, url) = (client.clone(), format!("http://{address}{path}"));
        async move { client.get(url).await }
    };
    assert_eq!(get("/status/418").await.status, 418);
    assert_eq!(get("/status/101").await.status, 400, "an interim status is no answer");
    assert_eq!(get("/status/nonsense").await.status, 400);
    assert_eq!(get("/delay/20").await.text(), "hello from origin A after 20 ms\n");
    let bytes = get("/bytes/1000").await;
    assert_eq!((bytes.body.len(), bytes.header("content-length")), (1000, "1000"));
    assert_eq!(get("/bytes/99999999999").await.status, 400);
    let stream = get("/stream/3?interval_ms=5").await;
    assert_eq!(
        (stream.text().as_str(), stream.header("transfer-encoding")),
        ("chunk 1\nchunk 2\nchunk 3\n", "chunked")
    );
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (_origin, address) = start().await;
    let mut response = tokio::net::TcpStream::connect(&address).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    response.write_all(b"GET /events?interval_ms=10 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    while !seen.contains("data: event 3") {
        let mut buffer = [0; 1024];
        let n = tokio::time::timeout(testkit::DEADLINE, response.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
}

#[tokio::test]
async fn websockets_echo() {
    let (_origin, address) = start().await;
    let (mut socket, _) = connect_async(format!("ws://{address}/ws")).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn health_can_be_switched_down_and_up() {
    let (_origin, address) = start().await;
    let client = Client::new();
    let url = |path: &str| format!("http://{address}{path}");
    assert_eq!(client.get(url("/health")).await.status, 200);
    client.post(url("/health/down"), "").await;
    assert_eq!(client.get(url("/health")).await.status, 503);
    assert_eq!(client.get(url("/")).await.status, 200, "only its health fails");
    client.post(url("/health/up"), "").await;
    assert_eq!(client.get(url("/health")).await.status, 200);
    assert_eq!(client.post(url("/health/sideways"), "").await.status, 404);
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served() {
    let (_origin, address) = start().await;
    // The client sends the preface and an empty SETTINGS frame. The server answers with a SETTINGS frame.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let answer = tokio::time::timeout(testkit::DEADLINE, async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(hello).await.unwrap();
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.unwrap();
        frame
    });
    assert_eq!(answer.await.unwrap()[3], 4, "the type of a SETTINGS frame");
}

#[tokio::test]
async fn binary_serves_labelled_instances_and_logs_requests() {
    let binary = env!("CARGO_BIN_EXE_origin");
    let process = Process::spawn(binary, &["0", "0"], &[]);
    let line = process.line("origin B listens on http://").await;
    let address = line.rsplit("http://").next().unwrap().parse().unwrap();
    let answer = exchange(address, b"GET /?a=b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("hello from origin B"), "{answer}");
    let logged = process.line("GET /?a=b").await;
    assert!(logged.starts_with("B ") && logged.contains(" 200 "), "{logged}");

    let (code, said) = Process::run(binary, &["nonsense"], &[]).await;
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = Process::run(binary, &[&port], &[]).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
}
