//! Checks that the client and the upstream see the same id, and that no two requests have the same one.

use ex0301::RequestId;
use http::Request;
use testkit::{Behaviour, Client, Origin, expect, serve};

#[tokio::test]
async fn client_and_upstream_see_the_same_id() {
    let origin = Origin::start().await;
    let proxy = serve(RequestId { upstream: origin.address() });
    let answer = Client::new().get(proxy.url("/")).await;
    let up = origin.received()[0].header("x-request-id").to_owned();
    expect!(up.len(), 36, "the length of the X-Request-Id that the upstream got ({up:?})");
    expect!(answer.header("x-request-id"), up, "the X-Request-Id that the client got");
}

#[tokio::test]
async fn no_two_requests_have_the_same_id() {
    let origin = Origin::start().await;
    let proxy = serve(RequestId { upstream: origin.address() });
    let client = Client::new();
    let first = client.get(proxy.url("/")).await;
    expect!(first.header("x-request-id").len(), 36, "the length of the first answer's X-Request-Id");
    let second = client.get(proxy.url("/")).await;
    let differ = first.header("x-request-id") != second.header("x-request-id");
    expect!(differ, true, "whether two requests have different ids");
}

#[tokio::test]
async fn an_id_from_the_upstream_is_replaced() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Header("x-request-id", "the upstream's own"));
    let proxy = serve(RequestId { upstream: origin.address() });
    let answer = Client::new().get(proxy.url("/")).await;
    let ids = answer.headers.get_all("x-request-id").iter().count();
    expect!(ids, 1, "how many X-Request-Id fields the client got, when the upstream sends one, too");
    expect!(
        answer.header("x-request-id"),
        origin.received()[0].header("x-request-id"),
        "X-Request-Id at the client"
    );
}

#[tokio::test]
async fn an_id_from_the_client_is_replaced() {
    let origin = Origin::start().await;
    let proxy = serve(RequestId { upstream: origin.address() });
    let request = Request::get(proxy.url("/")).header("X-Request-Id", "forged").body(Default::default());
    let answer = Client::new().send(request.unwrap()).await;
    let up = origin.received()[0].headers.get_all("x-request-id").iter().count();
    expect!(up, 1, "how many X-Request-Id fields the upstream got");
    let replaced = origin.received()[0].header("x-request-id") != "forged";
    expect!(replaced, true, "whether the upstream got another id than the one that the client made up");
    expect!(answer.header("x-request-id").len(), 36, "the length of the X-Request-Id that the client got");
}
