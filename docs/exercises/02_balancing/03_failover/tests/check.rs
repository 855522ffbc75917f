//! Checks that a request that has failed tries one other upstream, if that is allowed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use ex0203::Failover;
use http::Request;
use testkit::{Behaviour, Client, Fault, Faulty, Origin, ServedProxy, expect, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn proxy(origins: &[&Origin]) -> ServedProxy {
    serve(Failover { upstreams: origins.iter().map(|origin| origin.address()).collect() })
}

#[tokio::test]
async fn before_sending_any_method_tries_another_upstream() {
    let (dead, alive) = (Origin::dead(), Origin::start().await);
    let proxy = proxy(&[&dead, &alive]);
    let client = Client::new();
    expect!(
        client.get(proxy.url("/")).await.status,
        200,
        "GET / when the first upstream refuses connections"
    );
    let answer = client.post(proxy.url("/"), "pay").await;
    expect!(answer.status, 200, "POST / when the first upstream refuses connections");
    expect!(alive.received().len(), 2, "how many requests the second upstream got");
}

#[tokio::test]
async fn after_sending_a_get_tries_another_upstream() {
    let (resets, alive) = (Origin::start().await, Origin::start().await);
    resets.behave(Behaviour::Reset);
    let proxy = proxy(&[&resets, &alive]);
    expect!(Client::new().get(proxy.url("/")).await.status, 200, "GET / after a reset by the first upstream");
}

#[tokio::test]
async fn after_sending_only_whole_idempotent_requests_are_retried() {
    const SMALL: usize = 3;
    const BEYOND_THE_BUFFER: usize = 200_000;
    for (method, body, status) in
        [("PUT", SMALL, 200), ("POST", SMALL, 502), ("PATCH", SMALL, 502), ("PUT", BEYOND_THE_BUFFER, 502)]
    {
        let (resets, alive) = (Origin::start().await, Origin::start().await);
        resets.behave(Behaviour::Reset);
        let proxy = proxy(&[&resets, &alive]);
        let request = Request::builder().method(method).uri(proxy.url("/")).body(vec![b'x'; body].into());
        let answer = Client::new().try_send(request.unwrap()).await.map(|answer| answer.status.as_u16());
        let what = format!("{method} / with a body of {body} bytes, after a reset by the first upstream");
        expect!(answer, Ok(status), "{what}");
        let asked = [resets.received().len(), alive.received().len()];
        expect!(asked, [1, usize::from(status == 200)], "requests at the two upstreams: {what}");
    }
}

#[tokio::test]
async fn a_response_that_has_begun_is_not_begun_again() {
    for fault in [Fault::ResetInBody, Fault::LengthTooLong] {
        let (breaks_off, alive) = (Faulty::start(fault).await, Faulty::start(Fault::None).await);
        let proxy = serve(Failover { upstreams: vec![breaks_off.address(), alive.address()] });
        let request = Request::get(proxy.url("/")).body(Default::default()).unwrap();
        let answer = Client::new().try_send(request).await;
        let answer = answer.map(|answer| answer.text()).map_err(|_| "it ends too early");
        let what = format!("when the first upstream breaks off in the middle of a body ({fault:?})");
        expect!(answer, Err("it ends too early"), "the body that the client gets, {what}");
        expect!(alive.seen("GET", "/"), 0, "requests at the second upstream, {what}");
    }
}

#[tokio::test]
async fn a_request_that_the_client_breaks_off_is_not_resent() {
    let (first, second) = (Origin::start().await, Faulty::start(Fault::None).await);
    let proxy = serve(Failover { upstreams: vec![first.address(), second.address()] });
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let half = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    client.write_all(half.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    // The proxy closes the connection when it has given up.
    let _ = client.read_to_end(&mut Vec::new()).await;
    // A connection of the proxy would be accepted before this one.
    Client::new().get(format!("http://{}/", second.address())).await;
    let tried = second.connections() - 1;
    expect!(
        tried,
        0,
        "how often the second upstream was tried, when the client left in the middle of a body"
    );
}

#[tokio::test]
async fn two_upstreams_are_tried_and_not_a_third() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    for origin in [&a, &b, &c] {
        origin.behave(Behaviour::Reset);
    }
    let proxy = proxy(&[&a, &b, &c]);
    expect!(Client::new().get(proxy.url("/")).await.status, 502, "GET / after a reset by every upstream");
    let tried = [&a, &b, &c].map(|origin| origin.received().len());
    expect!(tried, [1, 1, 0], "how often each upstream was tried");

    let (a, b, c) = (Origin::dead(), Origin::dead(), Origin::start().await);
    let proxy = self::proxy(&[&a, &b, &c]);
    expect!(
        Client::new().get(proxy.url("/")).await.status,
        502,
        "GET / when two of three upstreams refuse connections"
    );
}
