//! Requests that are too large, too slow, or break off, and the log lines about them.

use std::time::Duration;

use futures::{StreamExt, stream};
use testkit::tls::{self, Authority};
use testkit::{Origin, eventually, exchange, exchange_over};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::origin::Recorder;
use crate::support::{Gateway, Setup};

const SMALL: &str = "[health_check]\nenabled = false\n[limits]\nmax_uri_bytes = 100\nmax_header_bytes = 1000\n\
                     max_header_fields = 10\n";

/// Returns a GET of `target` with `fields` additional fields, each with a value of `bytes` bytes.
fn get(target: &str, fields: usize, bytes: usize) -> String {
    let fields: String = (0..fields).map(|i| format!("X-{i}: {}\r\n", "v".repeat(bytes))).collect();
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_head_may_be_so_large_and_not_larger() {
    let origin = Recorder::start().await;
    let wide = "[virtual_hosts.limits]\nmax_uri_bytes = 200\n[[virtual_hosts.routes]]\npath_prefix = \"/narrow\"\n\
                [virtual_hosts.routes.limits]\nmax_uri_bytes = 20\nmax_header_fields = 5\nmax_header_bytes = 200\n\
                [[virtual_hosts]]\ndomain = \"top\"\nenabled_backends_tag = \"all\"\n";
    let config = crate::support::config(&[origin.address], Setup { tables: SMALL, ..Setup::default() });
    let config = config.replace("[[backends]]", &format!("{wide}[[backends]]"));
    let gateway = Gateway::start_with_config(&config).await;
    let long = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    let narrow = format!("/narrow/{}", "x".repeat(20));
    let at_top = |request: String| request.replace("Host: a", "Host: top");
    for (what, request, status) in [
        ("a method without an end", "A".repeat(100_000), 501),
        ("a version without an end", format!("GET / HTTP/1.1{}", "1".repeat(100_000)), 400),
        ("just long enough", get(&long(200), 0, 0), 200),
        ("too long for this virtual host", get(&long(201), 0, 0), 414),
        ("just long enough at the top", at_top(get(&long(100), 0, 0)), 200),
        ("too long at the top", at_top(get(&long(101), 0, 0)), 414),
        ("too long for the route alone", get(&narrow, 0, 0), 414),
        ("no line at all", format!("GET /{}", "x".repeat(2000)), 414),
        ("few fields", get("/", 8, 1), 200),
        ("many fields", at_top(get("/", 9, 1)), 431),
        ("more fields than anywhere", get("/", 101, 1), 431),
        ("many fields for the route alone", get("/narrow", 4, 1), 431),
        ("a large field", at_top(get("/", 1, 1000)), 431),
        ("a large field for the route alone", get("/narrow", 1, 200), 431),
        ("a field larger than anywhere", get("/", 1, 40_000), 431),
        ("a field without end", format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(40_000)), 431),
    ] {
        let answer = exchange(gateway.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert!(status == 200 || answer.contains("application/problem+json"), "{what}: {answer}");
    }
    assert!(gateway.metric("proxy_requests_refused_total{reason=\"head_too_large\"}").await >= 3.0);
}

#[tokio::test]
async fn a_head_that_drips_is_answered_in_time() {
    let origin = Origin::start().await;
    let setup = Setup { proxy: "header_timeout_secs = 1", ..Setup::default() };
    let gateway = Gateway::start(&[&origin], setup).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    client.read_exact(&mut first).await.unwrap();
    let dripping = tokio::spawn(async move {
        let mut answer = String::new();
        let (mut read, mut write) = client.into_split();
        let drip = async {
            while write.write_all(b"X").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            _ = read.read_to_string(&mut answer) => {}
            () = drip => {}
        }
        answer
    });
    let answer = dripping.await.unwrap();
    assert!(answer.contains("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    // The header timeout starts with the first byte of the head, not with the previous response.
    let head = "GET /late HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!(
        answers.matches("HTTP/1.1 200 ").count() + answers.matches("HTTP/1.1 404 ").count(),
        2,
        "{answers}"
    );
    eventually!(gateway.metric("proxy_requests_refused_total{reason=\"request_timeout\"}").await == 1.0);
}

#[tokio::test]
async fn malformed_chunk_mid_body_gets_400_and_spares_the_backend() {
    let recorder = Recorder::start().await;
    let tables = "[health_check]\nenabled = false\n[circuit_breaker]\nconsecutive_failures = 1\n";
    let gateway = Gateway::start_over(&[recorder.address], Setup { tables, ..Setup::default() }).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let head = b"POST /broken HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    client.write_all(head).await.unwrap();
    eventually!(!recorder.seen("/broken").is_empty());
    client.write_all(b"5 \r\nhello\r\n0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("hexadecimal"), "{answer}");
    let next = gateway.get("/next").await;
    assert_eq!((next.status.as_u16(), next.text().as_str()), (200, "saw /next\n"));
    assert!(recorder.seen("/broken").iter().all(|seen| !seen.is_whole));
    assert_eq!(gateway.metric("proxy_circuit_opened_total{backend=\"origin-0\"}").await, 0.0);
    let line = gateway.process.line("/broken").await;
    assert!(line.contains("400") && line.contains("bad_request"), "{line}");
}

#[tokio::test]
async fn malformed_chunk_mid_body_ends_the_http2_backend_stream() {
    let origin = Origin::start().await;
    let tables = "[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    let head =
        "POST /anything HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (rest, status, arrived) in [("0\n\r\n", 400, 0), ("0\r\n\r\n", 200, 1)] {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(format!("{head}5\r\nhello\r\n").as_bytes()).await.unwrap();
        eventually!(gateway.metric("proxy_backend_requests_active{backend=\"origin-0\"}").await == 1.0);
        client.write_all(rest.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let whole = origin.received().into_iter().filter(|request| request.body == "hello");
        assert_eq!(whole.count(), arrived);
        eventually!(gateway.metric("proxy_backend_requests_active{backend=\"origin-0\"}").await == 0.0);
    }
}

#[tokio::test]
async fn requests_are_the_same_in_all_pieces() {
    let recorder = Recorder::start().await;
    let setup = Setup { tables: "[health_check]\nenabled = false\n", ..Setup::default() };
    let gateway = Gateway::start_over(&[recorder.address], setup).await;
    let requests = b"POST /piece HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n\
                     POST /piece HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nworld\
                     GET /piece HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for size in [1, 2, 3, 7, 64, 100] {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (mut read, mut write) = client.split();
        let sending = async {
            for piece in requests.chunks(size) {
                write.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let mut answers = String::new();
        let (_, read) = tokio::join!(sending, read.read_to_string(&mut answers));
        read.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{size}: {answers}");
    }
    let bodies: Vec<String> = recorder.seen("/piece").into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, ["hello", "world", ""].repeat(6));
}

#[tokio::test]
async fn refusal_is_sent_during_upload_and_logged() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let (mut read, mut write) = client.split();
    let sending = async {
        let _ = write.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n").await;
        for _ in 0..32 {
            let _ = write.write_all(&[b'x'; 64 * 1024]).await;
        }
        let _ = write.shutdown().await;
    };
    let mut answer = String::new();
    let (_, read) = tokio::join!(sending, read.read_to_string(&mut answer));
    assert!(read.is_ok() && answer.starts_with("HTTP/1.1 400 "), "{read:?}: {answer}");
    assert!(answer.contains("Content-Length") && answer.contains("nosniff"), "{answer}");
    let id = answer.split("\"request_id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let line = gateway.process.line(id).await;
    assert!(line.contains(" 400 ") && line.contains("bad_request"), "{line}");
    assert_eq!(gateway.metric("proxy_requests_refused_total{reason=\"bad_request\"}").await, 1.0);
    // A client that leaves in the middle of a head gets no log line.
    for piece in [&b"GET / HT"[..], b"GET / HTTP/1.1\r\nHost: a", b"", b"\x16\x03"] {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(piece).await.unwrap();
        drop(client);
    }
    exchange(gateway.address, get("/after", 0, 0).as_bytes()).await;
    gateway.process.line("/after").await;
    assert_eq!(super::complaints(&gateway), Vec::<String>::new());
    assert_eq!(origin.count("/"), 0);
}

#[tokio::test]
async fn wrong_protocol_on_port_gets_400_and_no_error_is_logged() {
    let identity = Authority::new().issue("secure.test");
    let host = format!(
        "[[virtual_hosts]]\ndomain = \"secure.test\"\nenabled_backends_tag = \"all\"\ncert_file = \"{}\"\n\
         key_file = \"{}\"\n",
        identity.certificate_file().display(),
        identity.key_file().display()
    );
    let setup = Setup { proxy: "listen_addr = \"127.0.0.1:0\"", tables: &host };
    let gateway = Gateway::start(&[&Origin::start().await], setup).await;
    let https = gateway.https().await;
    let answer = exchange(https, get("/", 0, 0).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("without TLS"), "{answer}");
    let answer = exchange(gateway.address, b"\x16\x03\x01\x00\xc0").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("TLS handshake"), "{answer}");
    // Over TLS, the gateway checks requests in the same way, and the client must speak the protocol that was
    // negotiated.
    let broken = tls::handshake(https, Some("secure.test"), |setup| setup.set_alpn_protos(b"\x08http/1.1"))
        .await
        .unwrap();
    let answer = exchange_over(broken, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let http2 =
        tls::handshake(https, Some("secure.test"), |setup| setup.set_alpn_protos(b"\x02h2")).await.unwrap();
    exchange_over(http2, b"GET / HTTP/1.1\r\nHost: secure.test\r\n\r\n").await;
    exchange(gateway.address, get("/after", 0, 0).as_bytes()).await;
    gateway.process.line("/after").await;
    assert_eq!(super::complaints(&gateway), Vec::<String>::new());
}

#[tokio::test]
async fn odd_targets_and_fields_never_get_a_pingora_reply() {
    let recorder = Recorder::start().await;
    let setup = Setup { tables: "[health_check]\nenabled = false\n", ..Setup::default() };
    let gateway = Gateway::start_over(&[recorder.address], setup).await;
    let signs = (b'!'..=b'~').filter(u8::is_ascii_punctuation).map(char::from);
    let requests = signs.flat_map(|sign| {
        let targets = ["/", "/?", "", "http://a", "http://a/", "http://a?"];
        let requests = targets.map(|start| format!("GET {start}{sign} HTTP/1.1\r\nHost: a\r\n"));
        let fields = [format!("{sign}: a\r\n"), format!("X: {sign}\r\n"), format!("Connection: {sign}\r\n")];
        requests.into_iter().chain(fields.map(|field| format!("GET / HTTP/1.1\r\nHost: a\r\n{field}")))
    });
    let answers = stream::iter(requests.map(|request| format!("{request}Connection: close\r\n\r\n")));
    let answers =
        answers.map(|request| async { (exchange(gateway.address, request.as_bytes()).await, request) });
    let answers: Vec<(String, String)> = answers.buffer_unordered(8).collect().await;
    // A response that Pingora makes has no request id.
    let answered_by_pingora = answers.iter().filter(|(answer, _)| !answer.contains("x-request-id"));
    assert_eq!(answered_by_pingora.collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    assert_eq!(super::complaints(&gateway), Vec::<String>::new());
}

#[tokio::test]
async fn half_closed_client_counts_as_gone() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    // The gateway answers the first two requests, because more bytes followed them before the client closed its side.
    let requests = [get("/first", 0, 0), get("/second", 0, 0), get("/delay/3600000", 0, 0)].concat();
    let requests = requests.replace("Connection: close\r\n", "");
    client.write_all(requests.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{answers}");
    let line = gateway.process.line("/delay/").await;
    assert!(line.contains(" 499 ") && line.contains("client_closed"), "{line}");
}
