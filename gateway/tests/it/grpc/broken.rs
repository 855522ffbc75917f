//! Backends that break calls off. In every case the client must get a gRPC status that tells it.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::Request;
use testkit::eventually;
use tokio::sync::Semaphore;

use super::service::Echo;
use super::start;
use crate::h2_peers::{Backend, Does, Exchange, MESSAGE, connect, send, send_and};
use crate::support::Gateway;

/// Tables with one attempt, and with a circuit that opens at the third failure in a row.
const FRAGILE: &str = "[retry]\nattempts = 1\n[circuit_breaker]\nconsecutive_failures = 3\n";

fn call(timeout: Option<&str>) -> Request<()> {
    let mut request = Request::post("http://gateway.test/test.Echo/Unary").header("te", "trailers");
    request = request.header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    request.body(()).unwrap()
}

/// Makes a call by a client that does not enforce its deadline itself.
async fn say(gateway: &Gateway, timeout: Option<&str>) -> Exchange {
    send(&connect(gateway.address).await, call(timeout), MESSAGE).await.unwrap()
}

#[tokio::test]
async fn gateway_enforces_the_grpc_deadline() {
    for (does, is_begun) in [(Does::Silence, false), (Does::BeginAndSilence, true)] {
        let backend = Backend::start(does).await;
        let gateway = start(backend.address, FRAGILE).await;
        for _ in 0..5 {
            let answer = say(&gateway, Some("150m")).await;
            assert_eq!(
                (answer.status, answer.trailers.is_some()),
                (http::StatusCode::OK, is_begun),
                "{answer:?}"
            );
            assert_eq!(answer.last_field("grpc-status"), "4", "{answer:?}");
            assert_eq!(answer.last_field("grpc-message"), "the call took longer than its grpc-timeout");
            assert_eq!(answer.headers["content-type"], "application/grpc");
            assert_eq!((&answer.body[..], answer.reset), (if is_begun { MESSAGE } else { b"" }, None));
        }
        let logged = gateway.process.line("deadline_exceeded").await;
        assert!(logged.contains(" 504 ") && logged.contains("grpc_status=4"), "{logged}");
        assert_eq!(gateway.metric("proxy_circuit_opened_total").await, 0.0, "a hurry is no failure");
    }
}

#[tokio::test]
async fn a_stream_that_its_backend_resets_ends_with_a_status() {
    for (does, is_begun) in [
        (Does::Reset(Reason::INTERNAL_ERROR), false),
        (Does::Reset(Reason::CANCEL), false),
        (Does::BeginAndReset(Reason::INTERNAL_ERROR), true),
        (Does::BeginAndClose, true),
    ] {
        let backend = Backend::start(does).await;
        let gateway = start(backend.address, FRAGILE).await;
        for _ in 0..3 {
            let client = connect(gateway.address).await;
            let answer = send_and(&client, call(None), MESSAGE, || backend.go_on()).await.unwrap();
            assert_eq!(answer.last_field("grpc-status"), "14", "{does:?}: {answer:?}");
            assert_eq!((answer.reset, answer.trailers.is_some()), (None, is_begun), "{does:?}: {answer:?}");
            assert!(!answer.last_field("x-request-id").is_empty(), "{does:?}: {answer:?}");
            assert_eq!(answer.body, if is_begun { MESSAGE } else { b"" }, "{does:?}");
        }
        eventually!(gateway.metric("proxy_circuit_opened_total").await == 1.0, "{does:?}");
        let answer = say(&gateway, None).await;
        assert_eq!(answer.last_field("grpc-status"), "14");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_stream_that_was_refused_goes_again() {
    let backend = Backend::start(Does::RefuseFirst).await;
    let gateway = start(backend.address, "").await;
    let answer = say(&gateway, None).await;
    assert_eq!((answer.last_field("grpc-status"), &answer.body[..]), ("0", MESSAGE), "{answer:?}");
}

#[tokio::test]
async fn a_connection_that_takes_no_more_streams_is_left_without_loss() {
    let backend = Backend::start(Does::BeginAndGoAway).await;
    let gateway = start(backend.address, "").await;
    let begun = Arc::new(Semaphore::new(0));
    let mut streams = Vec::new();
    for _ in 0..5 {
        let (client, begun_here) = (connect(gateway.address).await, begun.clone());
        streams.push(tokio::spawn(async move {
            send_and(&client, call(None), MESSAGE, || begun_here.add_permits(1)).await.unwrap()
        }));
        begun.acquire().await.unwrap().forget();
    }
    eventually!({
        backend.go_on();
        streams.iter().all(|stream| stream.is_finished())
    });
    for stream in streams {
        let answer = stream.await.unwrap();
        assert_eq!((answer.last_field("grpc-status"), &answer.body[..]), ("0", MESSAGE), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_of_grpc_is_passed_on_as_it_is() {
    let backend = Backend::start(Does::Html(503)).await;
    let gateway = start(backend.address, FRAGILE).await;
    for _ in 0..3 {
        let answer = say(&gateway, None).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (503, &b"<html>"[..]));
    }
    eventually!(gateway.metric("proxy_circuit_opened_total").await == 1.0);
    assert_eq!(gateway.metric("proxy_grpc_responses_total{grpc_status=\"none\"").await, 3.0);
}

#[tokio::test]
async fn a_reset_by_the_client_reaches_the_backend_in_a_silent_stream() {
    let echo = Echo::start().await;
    let gateway = start(echo.address, "").await;
    let mut client = connect(gateway.address).await.ready().await.unwrap();
    let chat = call(None);
    let (mut head, body) = chat.into_parts();
    head.uri = "http://gateway.test/test.Echo/Chat".parse().unwrap();
    let (response, mut sending) = client.send_request(Request::from_parts(head, body), false).unwrap();
    sending.send_data(Bytes::from_static(MESSAGE), false).unwrap();
    let mut answers = response.await.unwrap().into_body();
    assert_eq!(&answers.data().await.unwrap().unwrap()[5..], b"re: hi");
    assert_eq!(echo.seen.active(), 1);
    sending.send_reset(Reason::CANCEL);
    eventually!(echo.seen.active() == 0);
    let logged = gateway.process.line("client_closed").await;
    assert!(logged.contains(" 499 ") && logged.contains("grpc_status=1"), "{logged}");
}
