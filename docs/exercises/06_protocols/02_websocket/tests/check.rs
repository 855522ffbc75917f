//! Checks that WebSockets of our own pages pass, may be silent, and are never retried.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ex0602::Sockets;
use parking_lot::Mutex;
use testkit::{Client, DEADLINE, ServedProxy, dead_address, expect, serve};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const ANSWER: Duration = Duration::from_millis(300);
const IDLE: Duration = Duration::from_secs(3);
const ORIGIN: &str = "https://shop.example";

/// Upstream that behaves as the path of a request says.
struct Upstream {
    address: SocketAddr,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    async fn start() -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, paths) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let kept = paths.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(BufReader::new(stream), kept.clone()));
            }
        });
        Upstream { address, paths }
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().clone()
    }
}

async fn answer(mut stream: BufReader<TcpStream>, paths: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        paths.lock().push(path.clone());
        if ["/echo", "/break"].contains(&path.as_str()) {
            // Pingora ends a tunnel whose 101 comes before the end of the request has been seen.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(switch.as_bytes()).await?;
        }
        match path.as_str() {
            "/echo" => {
                let mut buffer = [0; 1024];
                loop {
                    let count = stream.read(&mut buffer).await?;
                    if count == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buffer[..count]).await?;
                }
            }
            "/break" => {
                stream.write_all(b"one").await?;
                // The client's answer says that the bytes have arrived.
                stream.read_u8().await?;
                return stream.get_ref().set_zero_linger();
            }
            "/slow" => std::future::pending().await,
            "/refuse" => stream.write_all(b"HTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n").await?,
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await?,
        }
    }
}

fn proxy(upstreams: &[SocketAddr]) -> ServedProxy {
    serve(Sockets { upstreams: upstreams.to_vec(), origin: ORIGIN, answer: ANSWER, idle: IDLE })
}

/// Sends a handshake for `path` with more fields and bytes after it. Returns the connection and the response's
/// head.
async fn open(proxy: &ServedProxy, path: &str, fields: &str, after: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\r\n{after}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    let reading = async {
        while !head.ends_with("\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte.into()),
                Err(_) => return,
            }
        }
    };
    let _ = timeout(DEADLINE, reading).await;
    (stream, head)
}

fn status(head: &str) -> &str {
    head.get(9..12).unwrap_or("none")
}

/// Sends `text` through a tunnel to an echo. Returns what comes back, or the reason why nothing does.
async fn echo(stream: &mut TcpStream, text: &str) -> String {
    let mut back = vec![0; text.len()];
    let talk = async {
        stream.write_all(text.as_bytes()).await?;
        stream.read_exact(&mut back).await
    };
    match timeout(DEADLINE, talk).await {
        Ok(Ok(_)) => String::from_utf8_lossy(&back).into_owned(),
        Ok(Err(error)) => format!("closed ({error})"),
        Err(_) => "nothing".to_owned(),
    }
}

/// Reads until the connection closes, and for `time` at most. Returns how long it was open, and what came.
async fn rest(mut stream: TcpStream, time: Duration) -> (Option<Duration>, String) {
    let (started, mut came) = (Instant::now(), Vec::new());
    let closed = timeout(time, stream.read_to_end(&mut came)).await.is_ok();
    (closed.then(|| started.elapsed()), String::from_utf8_lossy(&came).into_owned())
}

#[tokio::test]
async fn sockets_of_our_own_pages_pass() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&[upstream.address]);
    for (fields, expected) in [
        ("Origin: https://shop.example\r\n", "101"),
        ("", "101"),
        ("Origin: https://evil.example\r\n", "403"),
        ("Origin: https://shop.example.evil.example\r\n", "403"),
        ("Origin: http://shop.example\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("Origin: https://evil.example\r\nReferer: https://shop.example\r\n", "403"),
    ] {
        let (mut stream, head) = open(&proxy, "/echo", fields, "").await;
        expect!(status(&head), expected, "the status of a handshake with {fields:?}");
        if expected == "101" {
            expect!(echo(&mut stream, "ping").await, "ping", "what an echo sends back through the tunnel");
        }
    }
    expect!(upstream.paths().len(), 2, "how many of these handshakes the upstream got");
    let request = http::Request::get(proxy.url("/")).header("Origin", "https://evil.example");
    let answer = Client::new().send(request.body(Default::default()).unwrap()).await;
    expect!(answer.status, 200, "the status of an ordinary GET of another page");
}

#[tokio::test]
async fn a_tunnel_may_be_silent_and_a_response_may_not() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&[upstream.address]);
    let (mut stream, head) = open(&proxy, "/echo", "", "").await;
    expect!(status(&head), "101", "the status of a handshake");
    let mut byte = [0];
    let silent = timeout(ANSWER * 3, stream.read(&mut byte)).await.is_err();
    expect!(silent, true, "whether a tunnel without traffic is open after {:?}", ANSWER * 3);
    expect!(echo(&mut stream, "ping").await, "ping", "what an echo sends back after the silence");

    let started = Instant::now();
    let answer = Client::new().status(proxy.url("/slow")).await;
    expect!(answer, Ok(502), "the status of an ordinary GET, when the upstream is silent");
    let soon = started.elapsed() < IDLE * 2 / 3;
    expect!(soon, true, "whether that 502 came after {ANSWER:?}, and not after {IDLE:?}");
}

#[tokio::test]
async fn a_tunnel_that_is_silent_for_too_long_ends() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&[upstream.address]);
    let (stream, head) = open(&proxy, "/echo", "", "").await;
    expect!(status(&head), "101", "the status of a handshake");
    let (open_for, _) = rest(stream, IDLE * 2).await;
    expect!(open_for.is_some(), true, "whether a tunnel without traffic closes after {IDLE:?}");
    let early = open_for.is_some_and(|time| time < IDLE / 2);
    expect!(early, false, "whether a tunnel without traffic closes much too early");
}

#[tokio::test]
async fn nothing_that_has_begun_is_tried_again() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let proxy = proxy(&[first.address, second.address]);
    let (mut stream, head) = open(&proxy, "/break", "", "").await;
    expect!(status(&head), "101", "the status of a handshake");
    expect!(echo(&mut stream, "got").await, "one", "the first bytes of the first upstream");
    let (_, came) = rest(stream, DEADLINE).await;
    expect!(came, "", "what comes through the tunnel after the first upstream has reset it");
    expect!(
        second.paths(),
        [""; 0],
        "the requests at the second upstream, after the tunnel to the first broke"
    );

    let proxy = self::proxy(&[dead_address(), second.address]);
    let (_, head) = open(&proxy, "/echo", "", "").await;
    expect!(status(&head), "101", "the status of a handshake, when the first upstream refuses connections");
}

#[tokio::test]
async fn after_a_refused_handshake_the_connection_closes() {
    let upstream = Upstream::start().await;
    let proxy = proxy(&[upstream.address]);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for (path, fields, expected) in
        [("/refuse", "", "426"), ("/echo", "Origin: https://evil.example\r\n", "403")]
    {
        for together in [true, false] {
            let (mut stream, head) = open(&proxy, path, fields, if together { hidden } else { "" }).await;
            expect!(status(&head), expected, "the status of a refused handshake");
            if !together {
                let _ = stream.write_all(hidden.as_bytes()).await;
            }
            let (closed, _) = rest(stream, IDLE * 3 / 2).await;
            expect!(closed.is_some(), true, "whether the connection closes after the {expected}");
        }
    }
    let hidden = upstream.paths().iter().filter(|path| *path == "/hidden").count();
    expect!(hidden, 0, "how many requests were read out of the bytes after a refused handshake");
}
