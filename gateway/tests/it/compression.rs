use std::io::Read;

use bytes::Bytes;
use http::Request;
use testkit::{Behaviour, Client, DEADLINE, Origin, Response, exchange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use crate::h2_peers;
use crate::support::{Gateway, Setup};
use crate::websocket::{over, raw};

const ON: &str = "[health_check]\nenabled = false\n[compression]\n";

async fn post(gateway: &Gateway, accept: &str, body: &str) -> Response {
    let request = Request::post(gateway.url("/anything")).header("Accept-Encoding", accept);
    Client::new().send(request.body(Bytes::from(body.to_owned())).unwrap()).await
}

fn decoded(coding: &str, compressed: &[u8]) -> String {
    let mut plain = String::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(compressed).read_to_string(&mut plain).unwrap(),
        "br" => brotli::Decompressor::new(compressed, 4096).read_to_string(&mut plain).unwrap(),
        "zstd" => zstd::Decoder::new(compressed).unwrap().read_to_string(&mut plain).unwrap(),
        other => panic!("no coding {other:?}"),
    };
    plain
}

#[tokio::test]
async fn client_gets_preferred_coding_and_the_whole_body() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: ON, ..Setup::default() }).await;
    let body = "0123456789 abcdef ".repeat(20_000);
    for (accept, coding) in
        [("gzip, deflate, br, zstd", "zstd"), ("br, gzip;q=0.9", "br"), ("gzip;q=0.2, zstd;q=0", "gzip")]
    {
        let answer = post(&gateway, accept, &body).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, coding), "{accept}");
        assert_eq!(answer.header("vary"), "Accept-Encoding");
        assert!(!answer.headers.contains_key("content-length"));
        assert!(answer.body.len() < body.len() / 20, "{}", answer.body.len());
        let echo: serde_json::Value = serde_json::from_str(&decoded(coding, &answer.body)).unwrap();
        assert_eq!(echo["body"], body, "{coding}");
    }
    let plain = post(&gateway, "identity", &body).await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "Accept-Encoding"));
    assert_eq!(plain.json()["body"], body);
}

#[tokio::test]
async fn short_encoded_or_binary_responses_stay_uncompressed() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: ON, ..Setup::default() }).await;
    let short = post(&gateway, "gzip", "").await;
    // The response is not compressed, but its Vary field is that of a compressed one. A 304 for it has the same
    // field.
    assert_eq!(
        (short.header("content-encoding"), short.header("vary")),
        ("", "Accept-Encoding"),
        "{short:?}"
    );
    let request =
        Request::get(gateway.url("/bytes/5000")).header("Accept-Encoding", "gzip").body(Bytes::new());
    let binary = Client::new().send(request.unwrap()).await;
    assert_eq!((binary.header("content-encoding"), binary.header("content-length")), ("", "5000"));
    origin.behave(Behaviour::Header("content-encoding", "x-own"));
    let encoded = post(&gateway, "gzip", &"a".repeat(5000)).await;
    assert_eq!(encoded.header("content-encoding"), "x-own");
    origin.behave(Behaviour::Header("cache-control", "no-transform"));
    let fixed = post(&gateway, "gzip", &"a".repeat(5000)).await;
    assert_eq!((fixed.header("content-encoding"), fixed.header("vary")), ("", "Accept-Encoding"));
}

/// A backend with a page and an image of 4800 bytes, both with the tag `"v1"`. It supports ranges and
/// conditional requests.
async fn library(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let head = raw::head(&mut stream).await?.to_lowercase();
        let kind = if head.contains(" /image ") { "image/jpeg" } else { "text/html" };
        let is_part = head.contains("range: ");
        let (status, length) = match (head.contains("if-none-match: "), is_part) {
            (true, _) => ("304 Not Modified", None),
            (false, true) => ("206 Partial Content", Some(100)),
            (false, false) => ("200 OK", Some(4800)),
        };
        let part = if is_part { "Content-Range: bytes 0-99/4800\r\n" } else { "" };
        let content =
            length.map(|length| format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n{part}"));
        let body = "x".repeat(length.filter(|_| !head.starts_with("head ")).unwrap_or_default());
        let content = content.unwrap_or_default();
        let answer =
            format!("HTTP/1.1 {status}\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\n{content}\r\n{body}");
        stream.write_all(answer.as_bytes()).await?;
    }
}

#[tokio::test]
async fn header_fields_of_a_resource_agree_in_200_206_and_304() {
    let tables = "[compression]\n[cors]\nallow_origins = [\"https://a.example\"]\n\
         [rate_limit]\nrequests = 1000\n[headers]\nresponse_add = { \"Content-Location\" = \"/there\" }\n";
    let gateway = over(raw::backend(library).await, "http2_cleartext = true", tables).await;
    let http2 = h2_peers::connect(gateway.address).await;
    // Fields that RFC 9110 15.3.7 and 15.4.5 name, and fields that these policies set.
    let names = [
        "cache-control",
        "content-location",
        "etag",
        "expires",
        "vary",
        "access-control-allow-origin",
        "x-content-type-options",
        "x-frame-options",
        "referrer-policy",
        "ratelimit-policy",
    ];
    let said = async |method: &str, path: &str, fields: &[(&str, &str)]| {
        let request =
            Request::builder().method(method).uri(gateway.url(path)).header("Origin", "https://a.example");
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = Client::new().send(request.body(Bytes::new()).unwrap()).await;
        let over_http2 =
            Request::builder().method(method).uri(gateway.url(path)).header("origin", "https://a.example");
        let over_http2 =
            fields.iter().fold(over_http2, |request, (name, value)| request.header(*name, *value));
        let again = h2_peers::send(&http2, over_http2.body(()).unwrap(), "").await.unwrap();
        let of = |headers: &http::HeaderMap| -> Vec<String> {
            let values = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned());
            names.iter().map(|name| values(*name).collect::<Vec<_>>().join(", ")).collect()
        };
        assert_eq!(
            (again.status, of(&again.headers)),
            (answer.status, of(&answer.headers)),
            "{path} {fields:?}"
        );
        (answer.status.as_u16(), of(&answer.headers), answer.headers)
    };
    for path in ["/page", "/image"] {
        for accepted in ["gzip", "identity"] {
            let accept = ("Accept-Encoding", accepted);
            let range = ("Range", "bytes=0-99");
            let (status, whole, headers) = said("GET", path, &[accept]).await;
            let is_compressed = path == "/page" && accepted == "gzip";
            assert_eq!(
                (status, headers.contains_key("content-encoding")),
                (200, is_compressed),
                "{path} {accepted}"
            );
            let (status, of_head, head) = said("HEAD", path, &[accept]).await;
            assert_eq!((status, &of_head), (200, &whole), "{path} {accepted}");
            assert_eq!(head.get("content-encoding"), headers.get("content-encoding"), "{path} {accepted}");
            let tag = whole[2].clone();
            assert_eq!(tag, if is_compressed { "W/\"v1\"" } else { "\"v1\"" }, "{path} {accepted}");
            let (status, unchanged, _) = said("GET", path, &[accept, ("If-None-Match", &tag)]).await;
            assert_eq!((status, &unchanged), (304, &whole), "{path} {accepted}");
            let (status, part, of_part) = said("GET", path, &[accept, range]).await;
            assert_eq!((status, of_part.contains_key("content-encoding")), (206, false), "{path} {accepted}");
            // A 206 is part of the uncompressed response, so it has the tag of the backend. Its Vary field is
            // that of the 200.
            assert_eq!((&part[2], &part[4]), (&"\"v1\"".to_owned(), &whole[4]), "{path} {accepted}");
        }
    }
}

#[tokio::test]
async fn without_the_table_nothing_is_compressed() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    let answer = post(&gateway, "gzip", &"a".repeat(5000)).await;
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), ("", ""));
}

#[tokio::test]
async fn a_strong_tag_becomes_weak_and_head_says_the_same() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Header("etag", "\"v1\""));
    let gateway = Gateway::start(&[&origin], Setup { tables: ON, ..Setup::default() }).await;
    let padding = "x".repeat(3000);
    for method in ["GET", "HEAD"] {
        let request = Request::builder().method(method).uri(gateway.url("/anything"));
        let request = request.header("Accept-Encoding", "gzip").header("X-Padding", &padding);
        let answer = Client::new().send(request.body(Bytes::new()).unwrap()).await;
        assert_eq!(answer.header("content-encoding"), "gzip", "{method}");
        assert_eq!(answer.header("etag"), "W/\"v1\"", "{method}");
        assert!(!answer.headers.contains_key("content-length"), "{method}");
    }
}

#[tokio::test]
async fn http_1_0_client_gets_no_compression() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: ON, ..Setup::default() }).await;
    let padding = "x".repeat(3000);
    let request =
        format!("GET /anything HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\nX-Padding: {padding}\r\n\r\n");
    let answer = exchange(gateway.address, request.as_bytes()).await;
    assert!(answer.contains(&padding) && !answer.contains("content-encoding"), "{answer}");
}

#[tokio::test]
async fn not_modified_response_has_weak_tag_and_vary() {
    async fn unchanged(mut stream: TcpStream) -> std::io::Result<()> {
        raw::head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n").await
    }
    let gateway = over(raw::backend(unchanged).await, "", "[compression]\n").await;
    let request = Request::get(gateway.url("/")).header("If-None-Match", "W/\"v1\"").body(Bytes::new());
    let answer = Client::new().send(request.unwrap()).await;
    assert_eq!(answer.status, 304);
    assert_eq!((answer.header("etag"), answer.header("vary")), ("W/\"v1\"", "Accept-Encoding"));
}

#[tokio::test]
async fn http2_response_is_compressed() {
    let origin = Origin::start().await;
    let setup = Setup { proxy: "http2_cleartext = true", tables: ON };
    let gateway = Gateway::start(&[&origin], setup).await;
    let client = h2_peers::connect(gateway.address).await;
    let body = "0123456789 abcdef ".repeat(20_000);
    let request = Request::post(gateway.url("/anything")).header("accept-encoding", "br").body(()).unwrap();
    let answer = h2_peers::send(&client, request, body.clone()).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.headers["content-encoding"] == "br"), (200, true));
    let echo: serde_json::Value = serde_json::from_str(&decoded("br", &answer.body)).unwrap();
    assert_eq!((echo["body"].as_str(), answer.reset), (Some(&*body), None));
}

#[tokio::test]
async fn streamed_response_is_compressed_as_it_arrives() {
    let (next, told) = unbounded_channel::<()>();
    let told = std::sync::Arc::new(tokio::sync::Mutex::new(told));
    let address = raw::backend(move |mut stream: TcpStream| {
        let told = told.clone();
        async move {
            raw::head(&mut stream).await?;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}6\r\nfirst,\r\n").as_bytes()).await?;
            told.lock().await.recv().await;
            stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await
        }
    })
    .await;
    let gateway = over(address, "", "[compression]\n").await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let has = |read: &[u8], expected: &[u8]| {
        let Some(at) = read.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
        let mut plain = Vec::new();
        // The decoder returns an error at the missing end, after it has delivered all data before.
        let _ = flate2::read::GzDecoder::new(&*unchunked(&read[at + 4..])).read_to_end(&mut plain);
        plain == expected
    };
    for (expected, then) in [(&b"first,"[..], true), (b"first,last", false)] {
        let reading = async {
            while !has(&read, expected) {
                read.push(client.read_u8().await.unwrap());
            }
        };
        timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("no {expected:?}"));
        if then {
            next.send(()).unwrap();
        }
    }
}

/// Returns the data of the complete chunks in a chunked body.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let Some(at) = body.windows(2).position(|end| end == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..at]).unwrap(), 16).unwrap();
        let Some(chunk) = body.get(at + 2..at + 2 + size) else { break };
        plain.extend_from_slice(chunk);
        body = body.get(at + 4 + size..).unwrap_or_default();
    }
    plain
}
