use http::Request;
use testkit::{Client, Origin, exchange};

use crate::support::{Gateway, Setup};

#[tokio::test]
async fn the_backend_sees_who_the_client_is_and_not_what_it_claims() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    let request = Request::get(gateway.url("/anything"))
        .header("Host", "Shop.example:8080")
        .header("X-Forwarded-For", "6.6.6.6")
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", "for=6.6.6.6")
        .header("X-Real-IP", "6.6.6.6")
        .header("X-Request-Id", "mine")
        .header("Via", "1.0 fred")
        .body(bytes::Bytes::new());
    let answer = Client::new().send(request.unwrap()).await;

    let received = &origin.received()[0];
    assert_eq!(received.header("host"), "Shop.example:8080");
    assert_eq!(received.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(received.header("x-forwarded-proto"), "http");
    assert_eq!(received.header("x-forwarded-host"), "Shop.example:8080");
    assert_eq!(received.header("x-real-ip"), "127.0.0.1");
    assert!(!received.headers.contains_key("forwarded"));
    let via: Vec<_> = received.headers.get_all("via").iter().collect();
    assert_eq!(via, ["1.0 fred", "1.1 gateway"]);

    let id = received.header("x-request-id");
    assert_eq!(id.len(), 36);
    assert_eq!(answer.header("x-request-id"), id, "the client can name the request, and the backend too");
    assert_eq!(answer.header("via"), "1.1 gateway");
}

#[tokio::test]
async fn rules_change_both_ways_and_the_innermost_table_wins_whole() {
    let origin = Origin::start().await;
    let tables = format!(
        "[headers]\nresponse_set = {{ \"X-Top\" = \"1\" }}\nrequest_set = {{ \"X-Top\" = \"1\" }}\nexpose_backend = true\n\
         [[virtual_hosts]]\ndomain = \"own.example\"\nenabled_backends_tag = \"own\"\n\
         [virtual_hosts.headers]\nresponse_add = {{ \"X-Own\" = \"1\" }}\nresponse_remove = [\"X-Origin\"]\n\
         [[backends]]\nid = \"own\"\naddress = \"{}\"\ntags = [\"own\"]\n",
        origin.address()
    );
    let gateway = Gateway::start(&[&origin], Setup { tables: &tables, ..Setup::default() }).await;
    let top = gateway.get("/").await;
    assert_eq!((top.header("x-top"), top.header("x-backend")), ("1", "origin-0"));
    assert!(top.headers.contains_key("x-origin") && !top.headers.contains_key("x-own"));

    let request = Request::get(gateway.url("/")).header("Host", "own.example").body(bytes::Bytes::new());
    let own = Client::new().send(request.unwrap()).await;
    assert_eq!((own.header("x-own"), own.header("x-top"), own.header("x-backend")), ("1", "", ""));
    assert!(!own.headers.contains_key("x-origin"));

    let received = origin.received();
    assert_eq!(received[0].header("x-top"), "1");
    assert!(!received[1].headers.contains_key("x-top"));
    assert_eq!(received[1].header("x-proxy"), "gateway", "a key left out has its default");
}

#[tokio::test]
async fn bodies_pass_unchanged_both_ways() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup::default()).await;
    let body = "0123456789".repeat(30_000);
    let answer = gateway.post("/anything", &body).await;
    assert_eq!(answer.json()["body"], body);
    assert_eq!(gateway.get("/bytes/1000000").await.body.len(), 1_000_000);
    assert_eq!(gateway.get("/stream/5").await.text(), "chunk 1\nchunk 2\nchunk 3\nchunk 4\nchunk 5\n");
    let chunked = format!(
        "POST /anything HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        gateway.address
    );
    let answer = exchange(gateway.address, chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"body\": \"abcde\""), "{answer}");
}
