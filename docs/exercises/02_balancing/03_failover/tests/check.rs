//! Checks that a request that has failed tries one other upstream, if that is allowed.

use ex0203::Failover;
use http::Request;
use testkit::{Behaviour, Client, Origin, ServedProxy, expect, serve};

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
        "GET / when two upstreams refuse connections"
    );
}
