//! Checks that every request reaches the upstream, and that the response comes back.

use ex0101::FirstPeer;
use testkit::{Client, Origin, expect, serve};

#[tokio::test]
async fn a_request_is_forwarded_and_its_answer_comes_back() {
    let origin = Origin::start().await;
    let proxy = serve(FirstPeer { upstream: origin.address() });
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.status, 200, "GET / is answered by the upstream");
    expect!(answer.header("x-origin"), origin.label(), "x-origin, which says which upstream has answered");
}

#[tokio::test]
async fn path_query_and_body_arrive_as_they_were_sent() {
    let origin = Origin::start().await;
    let proxy = serve(FirstPeer { upstream: origin.address() });
    let answer = Client::new().post(proxy.url("/anything/deep?key=value"), "a body").await;
    expect!(answer.status, 200, "POST /anything/deep is answered by the upstream");
    let seen = answer.json();
    expect!(seen["path"], "/anything/deep", "the path that the upstream saw");
    expect!(seen["query"], "key=value", "the query that the upstream saw");
    expect!(seen["body"], "a body", "the body that the upstream saw");
}
