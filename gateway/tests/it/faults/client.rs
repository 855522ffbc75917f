//! A client that records exactly what it gets: the status, the end of the body, and unexpected bytes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

/// Time to wait for 100 (Continue) before the client sends the body anyway (RFC 9110 10.1.1).
const PATIENCE: Duration = Duration::from_millis(300);

/// A request of the matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Length of the body, in bytes.
    pub(super) body: usize,
    /// True if the client waits for 100 (Continue) before it sends the body.
    pub(super) expects: bool,
}

impl Ask {
    /// Returns a GET of `path`.
    pub(super) fn get(path: &'static str) -> Ask {
        Ask { method: "GET", path, body: 0, expects: false }
    }

    /// Returns a POST to `path` with a body of this length.
    pub(super) fn post(path: &'static str, body: usize) -> Ask {
        Ask { method: "POST", path, body, expects: false }
    }

    fn head(&self) -> String {
        let Ask { method, path, body, expects } = self;
        let length = if *method == "POST" { format!("Content-Length: {body}\r\n") } else { String::new() };
        let expect = if *expects { "Expect: 100-continue\r\n" } else { "" };
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{length}{expect}\r\n")
    }
}

/// Sends the request to the gateway at `address`, and describes the result in a few words: statuses, the error
/// of a Proxy-Status, and faults of the body.
pub(super) async fn ask(address: SocketAddr, ask: Ask, limit: Duration) -> String {
    let began = Instant::now();
    let stream = TcpStream::connect(address).await.unwrap();
    let (reading, writing) = stream.into_split();
    let (heard, said) = watch::channel(Vec::new());
    // The client reads while it writes, so that it sees an early response.
    let sending = tokio::spawn(send(writing, ask, said));
    let whole = timeout(limit, read(reading, &heard)).await.is_ok();
    sending.abort();
    let said = heard.borrow().clone();
    let mut words = describe(&said);
    if !whole {
        words += &format!(" late: not over after {:?}", began.elapsed());
    }
    words
}

async fn send(mut writing: OwnedWriteHalf, ask: Ask, mut said: watch::Receiver<Vec<u8>>) {
    // A write error is ignored, because the response shows the result.
    let _ = writing.write_all(ask.head().as_bytes()).await;
    if ask.expects {
        let _ = timeout(PATIENCE, said.wait_for(|said| said.starts_with(b"HTTP/1.1 100"))).await;
    }
    let _ = writing.write_all(&vec![b'x'; ask.body]).await;
    // The client keeps the connection open until it has the response.
    std::future::pending::<()>().await;
}

async fn read(mut reading: OwnedReadHalf, heard: &watch::Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        match reading.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => heard.send_modify(|said| said.extend_from_slice(&buffer[..length])),
        }
    }
}

/// Describes the bytes of a response in a few words.
fn describe(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let mut words = Vec::new();
    let mut rest = said.as_ref();
    loop {
        let Some((head, body)) = rest.split_once("\r\n\r\n") else {
            words.push(if rest.is_empty() { "closed".to_owned() } else { format!("half a head: {rest:?}") });
            return words.join(" ");
        };
        let status = head.split(' ').nth(1).unwrap_or_default();
        words.push(status.to_owned());
        if status != "101" && status.starts_with('1') {
            rest = body;
            continue;
        }
        let error = field(head, "proxy-status").next().and_then(|value| value.split("error=").nth(1));
        words.extend(error.map(str::to_owned));
        words.extend(wrong_with(status, head, body).map(str::to_owned));
        return words.join(" ");
    }
}

/// Returns the fault of a response's body, if it has one.
fn wrong_with(status: &str, head: &str, body: &str) -> Option<&'static str> {
    let lengths: Vec<_> = field(head, "content-length").collect();
    let length = match lengths.as_slice() {
        _ if status == "101" => 0,
        [] if field(head, "transfer-encoding").next().is_none() => body.len(),
        [] => return (!body.ends_with("\r\n0\r\n\r\n")).then_some("cut"),
        [length] => match length.parse() {
            Ok(length) => length,
            Err(_) => return Some("with a list of lengths"),
        },
        _ => return Some("with several lengths"),
    };
    match body.len().cmp(&length) {
        std::cmp::Ordering::Less => Some("cut"),
        std::cmp::Ordering::Greater => Some("and more"),
        std::cmp::Ordering::Equal => (status == "200" && body != "hello").then_some("with another body"),
    }
}

/// Returns the values of a header field.
fn field<'h>(head: &'h str, name: &'static str) -> impl Iterator<Item = &'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(move |(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[test]
fn response_descriptions_name_status_and_fault() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let refused = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1\r\nProxy-Status: gateway; error=x\r\n\r\nw";
    for (said, words) in [
        (String::new(), "closed"),
        (format!("{ok}hello"), "200"),
        (format!("HTTP/1.1 100 Continue\r\n\r\n{ok}hello"), "100 200"),
        (format!("{ok}hell"), "200 cut"),
        (format!("{ok}hellohello"), "200 and more"),
        (format!("{ok}olleh"), "200 with another body"),
        (refused.to_owned(), "502 x"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello".to_owned(), "200 with a list of lengths"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_owned(), "200 cut"),
    ] {
        assert_eq!(describe(said.as_bytes()), words, "{said}");
    }
}
