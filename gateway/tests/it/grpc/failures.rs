//! gRPC statuses of local replies, and the effect of a backend's status on its health.

use testkit::{Origin, eventually};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::client::{Calls, all, client};
use super::service::Echo;
use super::{HTTP2, start, start_with};
use crate::support::Gateway;

/// Returns a client of the virtual host `authority`.
async fn client_of(gateway: &Gateway, authority: &str) -> Calls<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap();
    let origin = format!("http://{authority}").parse().unwrap();
    Calls::new(endpoint.origin(origin).connect().await.unwrap())
}

#[tokio::test]
async fn every_refusal_is_a_status_that_clients_understand() {
    let echo = Echo::start().await;
    let host = |name: &str, tables: &str| {
        format!("[[virtual_hosts]]\ndomain = \"{name}\"\nenabled_backends_tag = \"all\"\n{tables}\n")
    };
    let hosts = [
        host("limited.test", "[virtual_hosts.rate_limit]\nrequests = 1\nwindow_secs = 600\n"),
        host(
            "faulty.test",
            "[[virtual_hosts.routes]]\npath_prefix = \"/test.Echo\"\nfault = { abort_status = 503, abort_percent = 100 }",
        ),
        host(
            "forbidden.test",
            "[[virtual_hosts.routes]]\npath_prefix = \"/test.Echo\"\nfault = { abort_status = 403, abort_percent = 100 }",
        ),
        host(
            "moved.test",
            "[[virtual_hosts.routes]]\npath_prefix = \"/test.Echo\"\nredirect = \"/elsewhere\"",
        ),
        host("old.test", "[virtual_hosts.upstream]\nprotocol = \"http1\""),
    ];
    let tables = format!("{HTTP2}{}", hosts.concat());
    let gateway = start_with(echo.address, "", &tables).await;
    let mut first = client(gateway.address).await;
    assert_eq!(first.say("hello").await.unwrap(), "you said hello");
    for (authority, code, message, http) in [
        ("faulty.test", Code::Unavailable, "fault", 503),
        ("forbidden.test", Code::PermissionDenied, "fault", 403),
        ("moved.test", Code::Unknown, "", 308),
        ("old.test", Code::Unimplemented, "to the backend (upstream.protocol)", 415),
    ] {
        let status = client_of(&gateway, authority).await.say("hello").await.unwrap_err();
        assert_eq!(status.code(), code, "{authority}: {status:?}");
        assert!(status.message().contains(message), "{authority}: {status:?}");
        let id = status.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        let logged = gateway.process.line(&id).await;
        assert!(logged.contains(&format!(" {http} ")), "{authority}: {logged}");
        assert!(logged.contains(&format!("grpc_status={}", code as i32)), "{authority}: {logged}");
    }
    let over_http1 =
        http::Request::post(gateway.url("/test.Echo/Unary")).header("content-type", "application/grpc");
    let answer = testkit::Client::new().send(over_http1.body(Default::default()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "12"), "{answer:?}");

    let mut limited = client_of(&gateway, "limited.test").await;
    assert_eq!(limited.say("hello").await.unwrap(), "you said hello");
    let status = limited.say("hello").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.metadata().contains_key("retry-after"), "{status:?}");
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_unavailable() {
    let dead = Origin::dead();
    let gateway = start(dead.address(), "[retry]\nattempts = 1\n").await;
    let mut calls = client(gateway.address).await;
    let status = calls.say("hello").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the backend refused the connection"));
    assert_eq!(status.metadata().get("proxy-status").unwrap(), "gateway; error=connection_refused");
    let logged = gateway.process.line("connection_refused").await;
    assert!(logged.contains(" 502 ") && logged.contains("grpc_status=14"), "{logged}");
    eventually!(gateway.metric("proxy_responses_total{route=\"/\",status=\"5xx\"").await == 1.0);
}

#[tokio::test]
async fn a_status_that_says_so_is_a_failure_of_the_backend() {
    for (order, fails) in [
        ("fail 14", true),
        ("fail 13", true),
        ("fail 2", true),
        ("fail 15", true),
        ("fail 4", false),
        ("fail 5", false),
        ("fail 12", false),
        ("fail 8", false),
    ] {
        let echo = Echo::start().await;
        let gateway = start(echo.address, "[circuit_breaker]\nconsecutive_failures = 4\n").await;
        let mut calls = client(gateway.address).await;
        // The status is in the head if the response has no messages, otherwise in the trailers.
        for _ in 0..2 {
            calls.say(order).await.unwrap_err();
            let (messages, end) = all(calls.count(&format!("2 {order}")).await.unwrap()).await;
            assert!(messages.len() == 2 && end.is_some());
        }
        if fails {
            eventually!(gateway.metric("proxy_circuit_opened_total").await == 1.0, "{order}");
            let status = calls.say("hello").await.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::Unavailable, "every backend of this service is down")
            );
        } else {
            assert_eq!(calls.say("hello").await.unwrap(), "you said hello", "{order}");
        }
    }
}
