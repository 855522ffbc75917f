//! Response validation: a table of responses that backends send over HTTP/1 and HTTP/2. Clients of both
//! versions request each of them.
//!
//! A response that is malformed before its body becomes a 502. A response that turns out to be malformed later
//! must end so that the client can see that it is incomplete.

use std::net::SocketAddr;

use Expect::{Cut, Passes, Refused};
use bytes::Bytes;
use futures::{StreamExt, stream};
use h2::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use testkit::exchange;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::h2_peers;
use crate::support::{Gateway, Setup};
use crate::websocket::raw;

/// Result that a client must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The status 502, and no bytes of the backend's response.
    Refused,
    /// The head and an incomplete body; or 502, if the gateway found the fault before it passed the head on.
    Cut,
    /// The response with this body.
    Passes(&'static str),
}

/// An HTTP/1 response (name, RFC section, bytes, expected result). The backend keeps the connection open after it.
struct Case(&'static str, &'static str, &'static str, Expect);

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

#[rustfmt::skip]
const HTTP1: &[Case] = &[
    Case("a plain one", "9112 4", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Passes("hello")),
    Case("no reason and no space", "9112 4", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", Passes("hello")),
    Case("several equal lengths", "9110 8.6", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello", Passes("hello")),
    Case("a length with a zero before it", "9110 8.6", "HTTP/1.1 200 OK\r\nContent-Length: 05\r\n\r\nhello", Passes("hello")),
    Case("white space around a value", "9112 5", "HTTP/1.1 200 OK\r\nA: \t b \t\r\nContent-Length: 5\r\n\r\nhello", Passes("hello")),
    Case("a chunk with an extension, and trailers", "9112 7.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\n", Passes("hello")),
    Case("interim responses before it", "9110 15.2", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Passes("hello")),
    Case("more than it says", "9112 6.3", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n", Passes("hello")),

    Case("lines that end with LF", "9112 2.2", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", Refused),
    Case("an empty line before it", "9112 2.2", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("HTTP/0.9", "9112 2.1", "hello, this is no head of a response, and it has more than a line\r\n\r\n", Refused),
    Case("a version that is not spoken", "9112 2.3", "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a status of four digits", "9112 4", "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a status below 100", "9110 15", "HTTP/1.1 099 OK\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a control character in the reason", "9112 4", "HTTP/1.1 200 O\x08K\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a folded field", "9112 5.2", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a space before the first field", "9112 2.2", "HTTP/1.1 200 OK\r\n A: b\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a space before the colon", "9112 5.1", "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a quote in a name", "9110 5.6.2", "HTTP/1.1 200 OK\r\nA\"b: c\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a pseudo-field", "9113 8.3", "HTTP/1.1 200 OK\r\n:path: /\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a name without a field", "9112 5", "HTTP/1.1 200 OK\r\nA\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a NUL in a value", "9110 5.5", "HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("a bare CR in a value", "9112 2.2", "HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 5\r\n\r\nhello", Refused),
    Case("lengths that differ", "9112 6.3", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Refused),
    Case("a length with a sign", "9110 8.6", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", Refused),
    Case("a length beyond all bounds", "9110 8.6", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello", Refused),
    Case("a length beside chunks", "9112 6.3", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused),
    Case("an unknown coding", "9112 6.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused),
    Case("chunked twice", "9112 6.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused),
    Case("chunks in HTTP/1.0", "9112 6.1", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused),
    Case("a switch that was not asked for", "9110 7.8", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", Refused),

    Case("an empty line for a chunk's size", "9112 7.1", "\r\n\r\n", Cut),
    Case("an empty line for a size, and more", "9112 7.1", "\r\n5\r\nworld\r\n0\r\n\r\n", Cut),
    Case("an extension without a size", "9112 7.1", ";x=y\r\n\r\n", Cut),
    Case("a space for a size", "9112 7.1", " \r\n\r\n", Cut),
    Case("a size with a space behind it", "9112 7.1", "0 \r\n\r\n", Cut),
    Case("a size with 0x", "9112 7.1", "0x5\r\nworld\r\n0\r\n\r\n", Cut),
    Case("a size with a sign", "9112 7.1", "+5\r\nworld\r\n0\r\n\r\n", Cut),
    Case("a size beyond all bounds", "9112 7.1", "FFFFFFFFFFFFFFFFF\r\nworld\r\n0\r\n\r\n", Cut),
    Case("a chunk's line that ends with LF", "9112 7.1", "5\nworld\r\n0\r\n\r\n", Cut),
    Case("a chunk that is longer than it says", "9112 7.1", "2\r\nworld\r\n0\r\n\r\n", Cut),
    Case("a NUL in an extension", "9112 7.1.1", "5;a=\"\0\"\r\nworld\r\n0\r\n\r\n", Cut),
    Case("a trailer that frames", "9110 6.5.1", "0\r\nContent-Length: 5\r\n\r\n", Cut),
    Case("a pseudo-field in the trailers", "9113 8.1", "0\r\n:status: 200\r\n\r\n", Cut),
    Case("a folded trailer", "9112 5.2", "0\r\nA: b\r\n c\r\n\r\n", Cut),
];

/// Returns responses that are too large for the table.
fn oversized() -> Vec<(&'static str, String, Expect)> {
    let with = |fields: String| format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 5\r\n\r\nhello");
    vec![
        ("as many fields as may be", with("A: b\r\n".repeat(199)), Passes("hello")),
        ("more fields than may be", with("A: b\r\n".repeat(200)), Refused),
        ("a head as large as may be", with(format!("A: {}\r\n", "x".repeat(65_000))), Passes("hello")),
        ("a head that is larger than may be", with(format!("A: {}\r\n", "x".repeat(66_000))), Refused),
        ("a head of a megabyte", with(format!("A: {}\r\n", "x".repeat(1_000_000))), Refused),
        ("a head without end", "HTTP/1.1 200 OK\r\nA: ".to_owned() + &"x".repeat(200_000), Refused),
        ("interim responses without end", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40), Refused),
        ("extensions without end", format!("{CHUNKED}5;{}", "x".repeat(20_000)), Cut),
        ("trailers without end", format!("{CHUNKED}0\r\n{}", "A: b\r\n".repeat(100)), Cut),
    ]
}

#[tokio::test]
async fn malformed_http1_response_is_refused_or_cut() {
    let mut cases: Vec<(String, String, Expect)> = HTTP1
        .iter()
        .map(|Case(name, rfc, sent, expect)| {
            let sent = if *expect == Cut { format!("{CHUNKED}{sent}") } else { (*sent).to_owned() };
            (format!("{name} (RFC {rfc})"), sent, *expect)
        })
        .collect();
    cases.extend(oversized().into_iter().map(|(name, sent, expect)| (name.to_owned(), sent, expect)));
    let sent: Vec<String> = cases.iter().map(|(_, sent, _)| sent.clone()).collect();
    let backend = raw::backend(move |stream| answer(stream, sent.clone())).await;
    let cases: Vec<_> = cases.into_iter().map(|(name, _, expect)| (name, expect)).collect();
    hold(backend, "http1", &cases).await;
}

/// Answers the request for `/N` with response number N, and waits until the gateway closes the connection.
async fn answer(mut stream: TcpStream, responses: Vec<String>) -> std::io::Result<()> {
    let head = raw::head(&mut stream).await?;
    let number = head.split('/').nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let response = number.and_then(|number| responses.get(number)).cloned().unwrap_or_default();
    stream.write_all(response.as_bytes()).await?;
    let _ = raw::head(&mut stream).await;
    Ok(())
}

#[tokio::test]
async fn http2_response_that_http1_cannot_carry_is_refused() {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let many = |count: usize| (0..count).map(|_| field("x-a", "b")).collect::<Vec<_>>();
    let cases = vec![
        ("a plain one", vec![field("x-a", "b")], Vec::new(), Passes("hello")),
        ("a quote in a name", vec![field("x\"a", "b")], Vec::new(), Refused),
        ("a value that begins with a space", vec![field("x-a", " b")], Vec::new(), Refused),
        ("a value that ends with a tab", vec![field("x-a", "b\t")], Vec::new(), Refused),
        ("as many fields as may be", many(200), Vec::new(), Passes("hello")),
        ("more fields than may be", many(9_000), Vec::new(), Refused),
        ("a head that is larger than may be", vec![field("x-a", &"x".repeat(66_000))], Vec::new(), Refused),
        ("a trailer", Vec::new(), vec![field("x-a", "b")], Passes("hello")),
        ("a quote in the name of a trailer", Vec::new(), vec![field("x\"a", "b")], Passes("hello")),
        ("a trailer that begins with a space", Vec::new(), vec![field("x-a", " b")], Passes("hello")),
        ("more trailers than may be", Vec::new(), many(201), Passes("hello")),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let answers: Vec<_> =
        cases.iter().map(|(_, head, trailers, _)| (head.clone(), trailers.clone())).collect();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_http2(stream, answers.clone()));
        }
    });
    let cases: Vec<_> = cases.into_iter().map(|(name, _, _, expect)| (name.to_owned(), expect)).collect();
    hold(backend, "http2", &cases).await;
}

type Fields = Vec<(String, String)>;

async fn answer_http2(stream: TcpStream, answers: Vec<(Fields, Fields)>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let number = request.uri().path()[1..].parse::<usize>();
        let Some((head, trailers)) = number.ok().and_then(|number| answers.get(number)) else { continue };
        let mut response = Response::new(());
        *response.headers_mut() = map(head);
        let mut body = respond.send_response(response, false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), trailers.is_empty()).unwrap();
        if !trailers.is_empty() {
            body.send_trailers(map(trailers)).unwrap();
        }
    }
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_lowercase(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

/// Requests every case over both HTTP versions and reports all faults at once.
async fn hold(backend: SocketAddr, protocol: &str, cases: &[(String, Expect)]) {
    let tables = format!(
        "[health_check]\nenabled = false\n[retry]\nattempts = 1\n[circuit_breaker]\nenabled = false\n\
         [upstream]\nprotocol = \"{protocol}\"\n"
    );
    let setup = Setup { proxy: "http2_cleartext = true\n", tables: &tables };
    let gateway = Gateway::start_over(&[backend], setup).await;
    let asked = stream::iter(cases.iter().enumerate()).map(|(number, (name, expect))| {
        let address = gateway.address;
        async move {
            let got = [over_http1(address, number).await, over_http2(address, number).await];
            let versions = got.iter().zip(["HTTP/1.1", "HTTP/2"]).filter(|(got, _)| !is_right(got, *expect));
            versions
                .map(|(got, version)| format!("{name}, {version}: {got}, not {}", words(*expect)))
                .collect()
        }
    });
    let faults: Vec<Vec<String>> = asked.buffered(4).collect().await;
    let faults = faults.concat();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), 2 * cases.len(), faults.join("\n"));
    assert!(!gateway.process.output().contains("panicked"));
}

fn is_right(got: &str, expect: Expect) -> bool {
    got == words(expect) || expect == Cut && got == words(Refused)
}

fn words(expect: Expect) -> String {
    match expect {
        Refused => "502 http_protocol_error".to_owned(),
        Cut => "cut".to_owned(),
        Passes(body) => format!("200 {body}"),
    }
}

async fn over_http1(gateway: SocketAddr, number: usize) -> String {
    let request = format!("GET /{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let got = exchange(gateway, request.as_bytes()).await;
    let finals = got.split("HTTP/1.1 ").filter(|part| part.len() > 3 && !part.starts_with('1'));
    let Some((head, body)) = finals.last().and_then(|last| last.split_once("\r\n\r\n")) else { return got };
    if head.starts_with("502") && head.contains("error=http_protocol_error") {
        return words(Refused);
    }
    if !head.contains("transfer-encoding: chunked") && !head.contains("Transfer-Encoding: chunked") {
        return format!("{} {body}", &head[..3]);
    }
    match body.strip_suffix("0\r\n\r\n") {
        None => words(Cut),
        Some(chunks) => format!("{} {}", &head[..3], chunks.split("\r\n").nth(1).unwrap_or_default()),
    }
}

async fn over_http2(gateway: SocketAddr, number: usize) -> String {
    let client = h2_peers::connect(gateway).await;
    let request = Request::get(format!("http://a/{number}")).body(()).unwrap();
    match h2_peers::send(&client, request, "").await {
        Err(error) => error.to_string(),
        Ok(got) if got.reset.is_some_and(|reason| reason != Reason::NO_ERROR) => words(Cut),
        Ok(got) if got.status == 502 && got.last_field("proxy-status").contains("http_protocol_error") => {
            words(Refused)
        }
        // Only well-formed trailers may reach the client.
        Ok(got) => {
            match got.trailers.as_ref().filter(|trailers| trailers.len() != 1 || trailers["x-a"] != "b") {
                Some(trailers) if !trailers.is_empty() => format!("trailers {trailers:?}"),
                _ => format!("{} {}", got.status.as_u16(), String::from_utf8_lossy(&got.body)),
            }
        }
    }
}

#[tokio::test]
async fn debug_log_describes_a_malformed_response() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let responses = vec!["HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_owned()];
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, responses.clone()));
        }
    });
    let tables = "[logging]\nlevel = \"debug\"\n[health_check]\nenabled = false\n[retry]\nattempts = 1\n";
    let gateway = Gateway::start_over(&[backend], Setup { proxy: "", tables }).await;
    assert_eq!(over_http1(gateway.address, 0).await, words(Refused));
    let line = gateway.process.line("a backend's response is not valid HTTP/1").await;
    assert!(line.contains("Content-Length") && line.contains("origin-0"), "{line}");
}
