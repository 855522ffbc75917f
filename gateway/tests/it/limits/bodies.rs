//! Bodies that are too long, by their announced length or by the bytes received.

use http::Request;
use testkit::{Origin, exchange};

use super::{met, start};
use crate::frames::{DATA, END_STREAM, Frame, HEADERS, Wire};
use crate::grpc::client::client;
use crate::grpc::service::Echo;
use crate::h2_peers::{connect, send};
use crate::support::{Gateway, Setup};

const TEN: &str = "[limits]\nmax_request_body_bytes = 10\n";

fn post(fields: &str, body: &str) -> String {
    format!("POST /anything HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n{body}")
}

fn post_2() -> Request<()> {
    Request::post("http://web.test/anything").body(()).unwrap()
}

#[tokio::test]
async fn body_announced_too_long_gets_413_and_reaches_no_backend() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "", TEN).await;
    let refused = exchange(gateway.address, post("Content-Length: 11\r\n", "hello there").as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert!(refused.contains("urn:problem-type:gateway:content_too_large"), "{refused}");
    // A client that expects 100 (Continue) is refused at once and need not send its body.
    let expects = post("Content-Length: 11\r\nExpect: 100-continue\r\n", "");
    let refused = exchange(gateway.address, expects.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    let request = Request::post("http://web.test/anything").header("content-length", 11).body(()).unwrap();
    let answer = send(&connect(gateway.address).await, request, "hello there").await.unwrap();
    assert_eq!(answer.status, 413);

    assert_eq!(met(&gateway, "request_body").await, 3.0);
    assert!(origin.received().is_empty());
    assert_eq!(gateway.metric("proxy_backend_connections_total").await, 0.0);
    let just_fits = exchange(gateway.address, post("Content-Length: 10\r\n", "just fits!").as_bytes()).await;
    assert!(just_fits.starts_with("HTTP/1.1 200 "), "{just_fits}");
}

#[tokio::test]
async fn body_counted_too_long_gets_413_and_spares_the_backend() {
    let origin = Origin::start().await;
    let tables = format!("{TEN}[circuit_breaker]\nconsecutive_failures = 1\n");
    let gateway = start(&origin, "", &tables).await;
    let chunked = |body| post("Transfer-Encoding: chunked\r\n", body);
    for body in
        ["b\r\nhello there\r\n0\r\n\r\n", "5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n", "b\r\nhello there\r\n"]
    {
        let refused = exchange(gateway.address, chunked(body).as_bytes()).await;
        assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
        assert!(refused.contains("\r\nConnection: close\r\n"), "{refused}");
    }
    let client = connect(gateway.address).await;
    let answer = send(&client, post_2(), "hello there").await.unwrap();
    assert_eq!(answer.status, 413);
    assert!(String::from_utf8_lossy(&answer.body).contains("content_too_large"));
    // Only the one stream was affected.
    assert_eq!(send(&client, post_2(), "just fits!").await.unwrap().status, 200);

    let whole = origin.received().iter().filter(|request| !request.body.is_empty()).count();
    assert_eq!(whole, 1, "a backend never has all of a body that is too long");
    assert_eq!(met(&gateway, "request_body").await, 4.0);
    assert_eq!(gateway.metric("proxy_circuit_opened_total").await, 0.0);
    assert_eq!(gateway.metric("proxy_retries_total").await, 0.0);
    let fits = exchange(gateway.address, chunked("a\r\njust fits!\r\n0\r\n\r\n").as_bytes()).await;
    assert!(fits.starts_with("HTTP/1.1 200 "), "{fits}");
}

#[tokio::test]
async fn a_client_of_http2_that_goes_on_sending_is_told_to_stop() {
    let origin = Origin::start().await;
    let gateway = start(&origin, "", TEN).await;
    let mut wire = Wire::connect(gateway.address).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/anything")];
    wire.send(&[Frame::head(1, &head, false), Frame::new(DATA, 0, 1, vec![0; 100])]).await;
    assert!(wire.find(|frame| frame.kind == HEADERS && frame.stream == 1).await.is_some());
    let end = wire.find(|frame| frame.stream == 1 && frame.is_end()).await.unwrap();
    assert_eq!(end.flags & END_STREAM, END_STREAM);
    // RFC 9113 8.1: the response is complete, and the rest of the request is not needed.
    const NO_ERROR: u32 = 0;
    let reset = wire.find(|frame| frame.kind == crate::frames::RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, reset.reason()), (1, NO_ERROR));
}

#[tokio::test]
async fn innermost_table_sets_the_body_limit() {
    let origin = Origin::start().await;
    let tables = format!(
        "{TEN}[[virtual_hosts]]\ndomain = \"web.test\"\nenabled_backends_tag = \"all\"\n\
         [[virtual_hosts.routes]]\npath_prefix = \"/anything/long\"\n\
         [virtual_hosts.routes.limits]\nmax_request_body_bytes = 20\n\
         [[virtual_hosts.routes]]\npath_prefix = \"/anything/any\"\n\
         [virtual_hosts.routes.limits]\nmax_request_body_bytes = 0\n"
    );
    let gateway = start(&origin, "", &tables).await;
    let client = connect(gateway.address).await;
    for (path, length, status) in [
        ("/anything", 10, 200),
        ("/anything", 11, 413),
        ("/anything/long", 20, 200),
        ("/anything/long", 21, 413),
        ("/anything/any", 50_000, 200),
    ] {
        let request = Request::post(format!("http://web.test{path}")).body(()).unwrap();
        let answer = send(&client, request, vec![b'x'; length]).await.unwrap();
        assert_eq!(answer.status, status, "{length} bytes to {path}");
    }
}

#[tokio::test]
async fn oversized_grpc_message_gets_resource_exhausted() {
    let echo = Echo::start().await;
    let tables = format!("{TEN}[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\n");
    let setup = Setup { proxy: "http2_cleartext = true", tables: &tables };
    let gateway = Gateway::start_over(&[echo.address], setup).await;
    let mut calls = client(gateway.address).await;
    assert_eq!(calls.say("hello").await.unwrap(), "you said hello");
    let refused = calls.say("hello there").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
}
