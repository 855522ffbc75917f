//! A request that failed tries one other upstream, if it may.

use ex0203::Failover;
use testkit::{Behaviour, Client, Origin, ServedProxy, expect, serve};

fn proxy(origins: &[&Origin]) -> ServedProxy {
    serve(Failover { upstreams: origins.iter().map(|origin| origin.address()).collect() })
}

#[tokio::test]
async fn where_nothing_was_sent_any_method_tries_another() {
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
async fn after_sending_a_get_tries_another() {
    let (resets, alive) = (Origin::start().await, Origin::start().await);
    resets.behave(Behaviour::Reset);
    let proxy = proxy(&[&resets, &alive]);
    expect!(Client::new().get(proxy.url("/")).await.status, 200, "GET / when the first upstream breaks off");
}

#[tokio::test]
async fn after_sending_a_post_is_not_sent_again() {
    let (resets, alive) = (Origin::start().await, Origin::start().await);
    resets.behave(Behaviour::Reset);
    let proxy = proxy(&[&resets, &alive]);
    let answer = Client::new().post(proxy.url("/"), "pay").await;
    expect!(answer.status, 502, "POST / when the first upstream breaks off");
    expect!(resets.received().len(), 1, "how often the first upstream was asked to pay");
    expect!(alive.received().len(), 0, "how often the second upstream was asked to pay");
}

#[tokio::test]
async fn two_upstreams_are_tried_and_not_a_third() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    for origin in [&a, &b, &c] {
        origin.behave(Behaviour::Reset);
    }
    let proxy = proxy(&[&a, &b, &c]);
    expect!(Client::new().get(proxy.url("/")).await.status, 502, "GET / when every upstream breaks off");
    let tried = [&a, &b, &c].map(|origin| origin.received().len());
    expect!(tried, [1, 1, 0], "how often each upstream was tried");

    let proxy = self::proxy(&[&Origin::dead(), &Origin::dead(), &Origin::start().await]);
    expect!(
        Client::new().get(proxy.url("/")).await.status,
        502,
        "GET / when two upstreams refuse connections"
    );
}
