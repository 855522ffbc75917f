//! Calls that work: all kinds, with metadata and statuses, many at once, and long-lived.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::future::join_all;
use testkit::eventually;
use tonic::{Code, Request, Streaming};

use super::client::{all, client};
use super::service::Echo;
use super::{start, start_with};

#[tokio::test]
async fn all_four_kinds_of_calls_arrive_whole() {
    let echo = Echo::start().await;
    let gateway = start(echo.address, "").await;
    let mut calls = client(gateway.address).await;
    assert_eq!(calls.say("hello").await.unwrap(), "you said hello");
    let large = "x".repeat(300_000);
    assert_eq!(calls.say(&large).await.unwrap(), format!("you said {large}"));
    let (messages, end) = all(calls.count("500").await.unwrap()).await;
    assert!(messages.len() == 500 && messages[499] == "499" && end.is_none(), "{end:?}");
    assert_eq!(calls.join(&["a", "b", "c"]).await.unwrap(), "a,b,c");
    let (to, from) = mpsc::unbounded();
    let mut answers = calls.chat(from).await.unwrap();
    for i in 0..20 {
        to.unbounded_send(i.to_string()).unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), format!("re: {i}"), "each is answered in turn");
    }
    drop(to);
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn metadata_and_statuses_arrive_as_they_were_sent() {
    let echo = Echo::start().await;
    let gateway = start(echo.address, "").await;
    let mut calls = client(gateway.address).await;
    let mut request = Request::new("hello".to_owned());
    request.metadata_mut().insert("x-note", "a note".parse().unwrap());
    request.metadata_mut().insert_bin("x-raw-bin", tonic::metadata::MetadataValue::from_bytes(b"\x00\xff"));
    let response = calls.unary(request).await.unwrap();
    assert_eq!(response.metadata().get("x-note-back").unwrap(), "a note");
    let seen = echo.seen.calls.lock()[0].clone();
    assert_eq!((&seen["te"], &seen["x-raw-bin"]), (&"trailers".parse().unwrap(), &"AP8".parse().unwrap()));
    assert!(seen.contains_key("x-request-id"), "{seen:?}");

    let at_once = calls.say("fail 9").await.unwrap_err();
    let (messages, at_the_end) = all(calls.count("3 fail 9").await.unwrap()).await;
    assert_eq!(messages, ["0", "1", "2"]);
    for status in [at_once, at_the_end.unwrap()] {
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "100 % schlecht, täglich"));
        assert_eq!(status.details(), b"\x00details\xff");
        assert_eq!(status.metadata().get("x-trailer").unwrap(), "last words");
    }
    assert_eq!(calls.missing().await.code(), Code::Unimplemented);
    for (status, count) in [(0, 1.0), (9, 2.0), (12, 1.0)] {
        let series =
            format!("proxy_grpc_responses_total{{grpc_status=\"{status}\",route=\"/\",vhost=\"*\"}}");
        eventually!(gateway.monitor("/metrics").await.text().contains(&series));
        assert_eq!(gateway.metric(&series).await, count, "{status}");
    }
    let logged = gateway.process.line("/test.Echo/Missing").await;
    assert!(logged.contains(" 501 ") && logged.contains("grpc_status=12"), "{logged}");
}

#[tokio::test]
async fn a_hundred_streams_go_at_once_over_one_connection() {
    const STREAMS: usize = 100;
    let echo = Echo::start().await;
    let gateway = start(echo.address, "").await;
    let calls = client(gateway.address).await;
    let begin = |i: usize| {
        let mut calls = calls.clone();
        async move {
            let (to, from) = mpsc::unbounded();
            to.unbounded_send(format!("first of {i}")).unwrap();
            let mut answers: Streaming<String> = calls.chat(from).await.unwrap();
            assert_eq!(answers.message().await.unwrap().unwrap(), format!("re: first of {i}"));
            (to, answers)
        }
    };
    let streams = join_all((0..STREAMS).map(begin)).await;
    assert_eq!(echo.seen.active(), STREAMS, "all of them are open");
    let end = |(i, (to, mut answers)): (usize, (mpsc::UnboundedSender<String>, Streaming<String>))| async move {
        let large = format!("{i}").repeat(10_000);
        to.unbounded_send(large.clone()).unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), format!("re: {large}"));
        if i % 2 == 0 {
            to.unbounded_send(format!("fail {}", 1 + i % 16)).unwrap();
            let status = answers.message().await.unwrap_err();
            assert_eq!(status.code() as usize, 1 + i % 16);
            assert_eq!(status.details(), b"\x00details\xff");
            assert_eq!(status.metadata().get("x-trailer").unwrap(), "last words");
        } else {
            drop(to);
            assert!(answers.message().await.unwrap().is_none());
            assert!(answers.trailers().await.is_ok());
        }
    };
    join_all(streams.into_iter().enumerate().map(end)).await;
    assert_eq!(echo.seen.peak.load(Ordering::SeqCst), STREAMS);
    eventually!(echo.seen.active() == 0);
    eventually!(gateway.metric("proxy_requests_active").await == 0.0);
}

#[tokio::test]
async fn a_stream_may_be_silent_for_longer_than_a_request_may_take() {
    let echo = Echo::start().await;
    let tables = super::HTTP2.replace("[upstream]\n", "[upstream]\nread_timeout_secs = 1\n");
    let gateway = start_with(echo.address, "request_timeout_secs = 1\n", &tables).await;
    let mut calls = client(gateway.address).await;
    let (to, from) = mpsc::unbounded();
    let mut answers = calls.chat(from).await.unwrap();
    let waiting = {
        let mut calls = calls.clone();
        tokio::spawn(async move { calls.wait(Request::new(String::new())).await })
    };
    let begun = Instant::now();
    eventually!(begun.elapsed() > Duration::from_millis(2500));
    to.unbounded_send("late".to_owned()).unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap(), "re: late");
    assert!(!waiting.is_finished(), "nor has the call that is not answered at all");
    waiting.abort();
}

#[tokio::test]
async fn remaining_grpc_deadline_is_passed_on() {
    let echo = Echo::start().await;
    let gateway = start(echo.address, "").await;
    let mut calls = client(gateway.address).await;
    let mut request = Request::new("hello".to_owned());
    request.set_timeout(Duration::from_secs(20));
    calls.unary(request).await.unwrap();
    let told = echo.seen.calls.lock()[0]["grpc-timeout"].to_str().unwrap().to_owned();
    let micros: u64 = told.strip_suffix('u').unwrap().parse().unwrap();
    assert!((10_000_000..20_000_000).contains(&micros), "{told}");
}

#[tokio::test]
async fn grpc_cancellation_reaches_the_backend() {
    let echo = Echo::start().await;
    let gateway = start(echo.address, "").await;
    let mut calls = client(gateway.address).await;

    // The client cancels in the middle of a silent stream.
    let mut answers = calls.watch("hello").await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap(), "hello");
    assert_eq!(echo.seen.active(), 1);
    drop(answers);
    eventually!(echo.seen.active() == 0);

    // The client cancels while it waits for a response.
    let mut other = calls.clone();
    let waiting = tokio::spawn(async move { other.wait(Request::new(String::new())).await });
    eventually!(echo.seen.active() == 1);
    waiting.abort();
    eventually!(echo.seen.active() == 0);

    // The client cancels when its deadline has passed.
    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_millis(300));
    let status = calls.wait(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    eventually!(echo.seen.active() == 0);

    let cancelled = "proxy_grpc_responses_total{grpc_status=\"1\",route=\"/\",vhost=\"*\"}";
    eventually!(gateway.metric(cancelled).await >= 2.0);
    assert_eq!(calls.say("still there").await.unwrap(), "you said still there");
    assert_eq!(gateway.metric("proxy_backend_connections_total").await, 1.0, "the connection goes on");
    assert_eq!(gateway.metric("proxy_circuit_opened_total").await, 0.0);
}
