//! The client and the upstream see the same id, and no two requests have the same.

use ex0301::RequestId;
use http::Request;
use testkit::{Client, Origin, expect, serve};

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
    expect!(first.header("x-request-id").is_empty(), false, "the first answer lacks an X-Request-Id");
    let second = client.get(proxy.url("/")).await;
    let same = first.header("x-request-id") == second.header("x-request-id");
    expect!(same, false, "two requests share an X-Request-Id");
}

#[tokio::test]
async fn what_a_client_claims_is_replaced() {
    let origin = Origin::start().await;
    let proxy = serve(RequestId { upstream: origin.address() });
    let request = Request::get(proxy.url("/")).header("X-Request-Id", "forged").body(Default::default());
    let answer = Client::new().send(request.unwrap()).await;
    let up = origin.received()[0].headers.get_all("x-request-id").iter().count();
    expect!(up, 1, "how many X-Request-Id fields the upstream got");
    let forged = origin.received()[0].header("x-request-id") == "forged";
    expect!(forged, false, "the upstream got the id that the client made up");
    expect!(answer.header("x-request-id").len(), 36, "the length of the X-Request-Id that the client got");
}
