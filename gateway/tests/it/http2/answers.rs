//! Responses of HTTP/2 backends whose content contradicts their fields. The client must see one response, and
//! the next bytes on its connection must be the next response.

use std::net::SocketAddr;

use http::Request;
use testkit::exchange;
use tokio::net::TcpListener;

use super::CLEARTEXT;
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Wire, block};
use crate::h2_peers::{connect, send};
use crate::support::{Gateway, Setup};

/// Starts a gateway with a backend that answers every request with these fields and these bytes.
async fn gateway(fields: &'static [(&'static str, &'static str)], data: &'static str) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut wire = Wire::accept(stream).await;
                while let Some(request) = wire.find(|frame| frame.kind == HEADERS).await {
                    let head = Frame::new(HEADERS, END_HEADERS, request.stream, block(fields));
                    wire.send(&[head, Frame::new(DATA, END_STREAM, request.stream, data)]).await;
                }
            });
        }
    });
    let tables = "[health_check]\nenabled = false\n[retry]\nattempts = 1\n[upstream]\nprotocol = \"http2\"\n";
    Gateway::start_over(&[backend], Setup { proxy: CLEARTEXT, tables }).await
}

/// Returns the bytes that an HTTP/1 client gets for two requests on one connection.
async fn twice(gateway: &Gateway) -> String {
    let two = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    exchange(gateway.address, two.as_bytes()).await
}

const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn status_without_content_has_no_body() {
    for fields in
        [&[(":status", "204")][..], &[(":status", "304")], &[(":status", "304"), ("content-length", "38")]]
    {
        let gateway = gateway(fields, RESPONSE).await;
        let answers = twice(&gateway).await;
        let status = format!("HTTP/1.1 {} ", fields[0].1);
        assert!(!answers.contains("200 OK") && answers.ends_with("\r\n\r\n"), "{fields:?}: {answers}");
        assert_eq!(answers.matches(&status).count(), 2, "{fields:?}: {answers}");
        let request = Request::get("http://a/").body(()).unwrap();
        let answer = send(&connect(gateway.address).await, request, "").await.unwrap();
        assert_eq!((answer.status.as_str(), answer.body.len()), (fields[0].1, 0), "{fields:?}");
    }
}

#[tokio::test]
async fn response_with_wrong_content_length_ends_the_connection() {
    for length in
        [&[(":status", "200"), ("content-length", "2")][..], &[(":status", "200"), ("content-length", "99")]]
    {
        let gateway = gateway(length, RESPONSE).await;
        let answers = twice(&gateway).await;
        // The client must not be able to read the excess data as a response, so the connection ends within the
        // first response.
        assert!(
            !answers.contains("200 OK\r\nContent-Length: 0") && answers.matches("HTTP/1.1").count() == 1,
            "{answers}"
        );
        let body = answers.split_once("\r\n\r\n").map(|(_, body)| body.len());
        assert!(body.is_none_or(|body| body < length[1].1.parse().unwrap()), "{answers}");
        let request = Request::get("http://a/").body(()).unwrap();
        match send(&connect(gateway.address).await, request, "").await {
            Ok(answer) => assert!(answer.reset.is_some() || answer.status == 502, "{answer:?}"),
            Err(error) => assert!(error.is_reset(), "{error}"),
        }
    }
}
