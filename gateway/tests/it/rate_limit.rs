use testkit::{Origin, exchange_from};

use crate::support::{Gateway, Setup};

const LIMIT: &str = "[rate_limit]\nrequests = 100\nwindow_secs = 60\n";

#[tokio::test]
async fn the_101st_request_of_a_client_is_refused_and_others_are_not() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: LIMIT, ..Setup::default() }).await;
    for n in 1..=100 {
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, 200, "request {n}");
        assert_eq!(answer.header("ratelimit-policy"), "\"default\";q=100;w=60");
        let expected = format!("\"default\";r={};t=", 100 - n);
        assert!(answer.header("ratelimit").starts_with(&expected), "{}", answer.header("ratelimit"));
    }
    for _ in 0..5 {
        let refused = gateway.get("/").await;
        assert_eq!(refused.status, 429);
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert!(refused.header("ratelimit").starts_with("\"default\";r=0;t="));
        let retry_after: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&retry_after), "{retry_after}");
    }
    assert_eq!(origin.count("/"), 100);

    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.address);
    let other = exchange_from("127.0.0.2".parse().unwrap(), gateway.address, request.as_bytes()).await;
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    assert_eq!(
        gateway.metric("proxy_rate_limited_total{policy=\"default\",route=\"/\",vhost=\"*\"}").await,
        5.0
    );
}

#[tokio::test]
async fn what_a_client_claims_to_be_does_not_matter() {
    let origin = Origin::start().await;
    let tables = "[rate_limit]\nrequests = 2\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    let mut statuses = Vec::new();
    for n in 0..4 {
        let request = http::Request::get(gateway.url("/")).header("X-Forwarded-For", format!("192.0.2.{n}"));
        let answer = testkit::Client::new().send(request.body(bytes::Bytes::new()).unwrap()).await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}
