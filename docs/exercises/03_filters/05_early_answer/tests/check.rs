//! Checks that local replies are complete, and that a request's body never disturbs the next request.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ex0305::{DRAIN, Front};
use http::Request;
use testkit::{Client, DEADLINE, Origin, Response, ServedProxy, converse, expect, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn proxy(origin: &Origin) -> ServedProxy {
    serve(Front { upstream: origin.address() })
}

async fn ask(proxy: &ServedProxy, method: &str, path: &str) -> Response {
    let request = Request::builder().method(method).uri(proxy.url(path)).body(Default::default());
    Client::new().send(request.unwrap()).await
}

/// Returns the lines of a conversation that begin with `start`.
fn lines(said: &str, start: &str) -> Vec<String> {
    said.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

#[tokio::test]
async fn each_path_gets_its_reply() {
    let origin = Origin::start().await;
    let proxy = proxy(&origin);
    for (method, path, status, body) in [
        ("GET", "/health", 200, "healthy ✓\n"),
        ("GET", "/health?verbose", 200, "healthy ✓\n"),
        ("POST", "/health", 405, "only GET and HEAD\n"),
        ("GET", "/healthy", 404, "there is no such page\n"),
        ("GET", "/health/upstreams", 404, "there is no such page\n"),
        ("GET", "/apis", 404, "there is no such page\n"),
        ("POST", "/", 404, "there is no such page\n"),
    ] {
        let answer = ask(&proxy, method, path).await;
        expect!(answer.status, status, "the status of {method} {path}");
        expect!(answer.text(), body, "the body of the reply to {method} {path}");
        let length = body.len().to_string();
        expect!(answer.header("content-length"), length, "Content-Length of the reply to {method} {path}");
    }
    expect!(ask(&proxy, "DELETE", "/health").await.header("allow"), "GET, HEAD", "Allow of the 405");
    expect!(origin.received().len(), 0, "how many of these requests the upstream got");
}

#[tokio::test]
async fn paths_of_the_api_go_to_the_upstream() {
    let origin = Origin::start().await;
    let proxy = proxy(&origin);
    for (path, count) in [("/api", 1), ("/api?page=2", 2), ("/api/users", 3)] {
        ask(&proxy, "GET", path).await;
        expect!(origin.received().len(), count, "how many requests the upstream got, after GET {path}");
    }
}

#[tokio::test]
async fn head_gets_the_fields_of_get_without_a_body() {
    let origin = Origin::start().await;
    let proxy = proxy(&origin);
    let said =
        converse(proxy.address(), &["HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]).await;
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
    expect!(lines(head, "HTTP/1.1"), ["HTTP/1.1 200 OK"], "the status of HEAD /health");
    let length = lines(&head.to_ascii_lowercase(), "content-length:");
    expect!(length, ["content-length: 12"], "Content-Length of the reply to HEAD /health");
    expect!(body, "", "the body of the reply to HEAD /health");
}

#[tokio::test]
async fn connection_stays_in_step_after_a_body() {
    let origin = Origin::start().await;
    let proxy = proxy(&origin);
    // A proxy that does not read this body takes it for the next request.
    let hidden = "GET /api/hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = hidden.len();
    let health = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = format!("POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{hidden}");
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"
    );
    let last = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let said = in_turn(proxy.address(), &[health, &post, &chunked, last]).await;
    expect!(
        said,
        [200, 405, 404, 200],
        "the statuses of GET, POST with a body, POST with chunks, GET, on one connection"
    );
    expect!(origin.count("/api/hidden"), 0, "how many requests the upstream got out of the bodies");
}

#[tokio::test]
async fn missing_body_delays_no_reply_and_ends_the_connection() {
    let origin = Origin::start().await;
    let proxy = proxy(&origin);
    for (what, bytes) in [("nothing of its body", 0), ("its body byte by byte, without an end", usize::MAX)] {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let request = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut first = vec![0; 12];
        let read = timeout(DRAIN / 2, stream.read_exact(&mut first)).await;
        let got = if read.is_ok() { String::from_utf8_lossy(&first).into_owned() } else { String::new() };
        expect!(got, "HTTP/1.1 405", "the reply to a POST /health before its body");
        let closed = closes(stream, bytes).await;
        expect!(
            closed,
            true,
            "whether the connection closes {DRAIN:?} after the reply, when the client sends {what}"
        );
    }
}

#[tokio::test]
async fn reply_survives_a_long_body() {
    let origin = Origin::start().await;
    let proxy = proxy(&origin);
    for _ in 0..3 {
        let request = Request::post(proxy.url("/health")).body(vec![b'x'; 1_000_000].into()).unwrap();
        let status = Client::new().try_send(request).await.map(|answer| answer.status.as_u16());
        expect!(status, Ok(405), "the reply to a client that first sends all of a body of 1 MB");
    }
}

/// Returns true if the proxy closes the connection in time. Until then, sends at most `bytes` bytes, slowly.
async fn closes(mut stream: TcpStream, bytes: usize) -> bool {
    let until = Instant::now() + DRAIN * 3;
    let mut buffer = [0; 1024];
    for turn in 0.. {
        if Instant::now() > until {
            return false;
        }
        if turn < bytes && stream.write_all(b"x").await.is_err() {
            return true;
        }
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_millis(50), stream.read(&mut buffer)).await {
            return true;
        }
    }
    false
}

/// Sends the requests on one connection, each after the reply to the previous one. Returns the statuses.
async fn in_turn(address: SocketAddr, requests: &[&str]) -> Vec<u16> {
    let exchange = timeout(DEADLINE, converse(address, requests)).await.unwrap_or_default();
    lines(&exchange, "HTTP/1.1 ").iter().map(|line| line[9..12].parse().unwrap_or(0)).collect()
}
