//! gRPC-Web in front of a service that supports only gRPC: with tonic's client, and with requests as a browser
//! sends them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use testkit::{Client, Origin, eventually};
use tonic::Code;
use tonic_web::GrpcWebClientService;

use super::client::{Calls, all};
use super::service::Echo;
use super::{HTTP2, start, start_with};
use crate::support::Gateway;

/// Encodes a gRPC message.
fn message(text: &str) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

/// Splits a body into its messages and the trailers at its end.
fn parts(mut body: &[u8]) -> (Vec<String>, String) {
    let mut messages = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let (text, rest) = rest.split_at(length);
        body = rest;
        let text = String::from_utf8(text.to_vec()).unwrap();
        if head[0] == 0x80 {
            assert!(body.is_empty(), "trailers are last");
            return (messages, text);
        }
        messages.push(text);
    }
    (messages, String::new())
}

async fn post(gateway: &Gateway, method: &str, kind: &str, body: impl Into<Bytes>) -> testkit::Response {
    let request = Request::post(gateway.url(&format!("/test.Echo/{method}")));
    Client::new().send(request.header("content-type", kind).body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_client_of_grpc_web_calls_a_service_of_grpc() {
    let echo = Echo::start().await;
    let gateway = start(echo.address, "").await;
    for http2 in [false, true] {
        let client = HyperClient::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let origin = format!("http://{}", gateway.address);
        let mut calls = Calls::with_origin(GrpcWebClientService::new(client), &origin);
        assert_eq!(calls.say("hello").await.unwrap(), "you said hello", "HTTP/2: {http2}");
        let (messages, end) = all(calls.count("50").await.unwrap()).await;
        assert!(messages.len() == 50 && end.is_none(), "{end:?}");
        let at_once = calls.say("fail 9").await.unwrap_err();
        let (messages, later) = all(calls.count("2 fail 9").await.unwrap()).await;
        assert_eq!(messages, ["0", "1"]);
        for status in [at_once, later.unwrap()] {
            assert_eq!(
                (status.code(), status.message()),
                (Code::FailedPrecondition, "100 % schlecht, täglich")
            );
        }
        assert_eq!(calls.missing().await.code(), Code::Unimplemented);
    }
    let seen = echo.seen.calls.lock();
    assert!(seen.iter().all(|call| call["content-type"] == "application/grpc" && call["te"] == "trailers"));
}

#[tokio::test]
async fn trailers_stand_at_the_end_of_the_body_in_base64_too() {
    let echo = Echo::start().await;
    let gateway = start(echo.address, "").await;
    let answer = post(&gateway, "Count", "application/grpc-web+proto", message("2 fail 5")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/grpc-web"));
    let (messages, trailers) = parts(&answer.body);
    assert_eq!(messages, ["0", "1"]);
    assert!(
        trailers.contains("grpc-status:5\r\n") && trailers.contains("x-trailer:last words\r\n"),
        "{trailers:?}"
    );

    let order = STANDARD.encode(message("100"));
    let answer = post(&gateway, "Count", "application/grpc-web-text", order).await;
    assert_eq!(answer.header("content-type"), "application/grpc-web-text");
    // Each part has its own base64 padding.
    let mut body = Vec::new();
    for part in answer.text().split_inclusive('=').collect::<Vec<_>>().concat().replace("==", "=").split('=')
    {
        body.extend(STANDARD.decode(pad(part)).unwrap_or_else(|error| panic!("{part:?}: {error}")));
    }
    let (messages, trailers) = parts(&body);
    assert_eq!((messages.len(), trailers.as_str()), (100, "grpc-status:0\r\n"));

    let answer = post(&gateway, "Unary", "application/grpc-web-text", "no base64!").await;
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "13"), "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/grpc-web-text+proto");
    let whole = STANDARD.encode(message("once more"));
    let answer = post(&gateway, "Unary", "application/grpc-web-text", whole).await;
    assert_eq!(answer.header("grpc-status"), "", "all is in the body: {answer:?}");
    eventually!(gateway.metric("proxy_grpc_responses_total{grpc_status=\"5\"").await == 1.0);
}

/// Adds the base64 padding that the part lacks.
fn pad(part: &str) -> String {
    format!("{part}{}", "=".repeat((4 - part.len() % 4) % 4))
}

#[tokio::test]
async fn refusal_is_a_grpc_web_response() {
    let dead = Origin::dead();
    let gateway = start(dead.address(), "[retry]\nattempts = 1\n").await;
    for (kind, answered) in [
        ("application/grpc-web", "application/grpc-web+proto"),
        ("application/grpc-web-text", "application/grpc-web-text+proto"),
    ] {
        let answer = post(&gateway, "Unary", kind, STANDARD.encode(message("hello"))).await;
        assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "14"), "{answer:?}");
        assert_eq!((answer.header("content-type"), answer.body.len()), (answered, 0));
        assert_eq!(answer.header("grpc-message"), "the backend refused the connection");
    }
}

#[tokio::test]
async fn a_backend_of_http1_gets_grpc_web_as_it_came() {
    let origin = Origin::start().await;
    let gateway = start_with(origin.address(), "", &HTTP2.replace("\"http2\"", "\"http1\"")).await;
    let kind = "application/grpc-web+proto";
    let request = Request::post(gateway.url("/anything")).header("content-type", kind);
    let answer = Client::new().send(request.body(message("hello").into()).unwrap()).await;
    assert_eq!(answer.status, Response::new(()).status());
    let received = origin.received();
    assert_eq!((received[0].header("content-type"), &received[0].body[..]), (kind, &message("hello")[..]));
}
