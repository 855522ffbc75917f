use bytes::Bytes;
use http::Request;
use testkit::{Behaviour, Client, Origin, Response};

use crate::support::{Gateway, Setup};

const APP: &str = "https://app.example.com";

const TABLES: &str = "[health_check]\nenabled = false\n\
    [cors]\nallow_origins = [\"https://app.example.com\"]\nallow_methods = [\"PUT\"]\nallow_credentials = true\n\
    expose_headers = [\"X-Total\"]\n[rate_limit]\nrequests = 2\n\
    [[virtual_hosts]]\ndomain = \"api.example\"\nenabled_backends_tag = \"all\"\n\
    [[virtual_hosts.routes]]\npath_prefix = \"/only\"\nmethods = [\"DELETE\"]\n\
    [virtual_hosts.routes.cors]\nallow_origins = [\"*\"]\nallow_methods = [\"DELETE\"]\n";

async fn ask(gateway: &Gateway, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(method).uri(gateway.url(path)).header("Host", "api.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Client::new().send(request.body(Bytes::new()).unwrap()).await
}

#[tokio::test]
async fn preflights_get_local_replies_and_are_not_rate_limited() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: TABLES, ..Setup::default() }).await;
    let put = ("Access-Control-Request-Method", "PUT");
    for _ in 0..5 {
        let asked = [("Origin", APP), put, ("Access-Control-Request-Headers", "content-type")];
        let answer = ask(&gateway, "OPTIONS", "/x", &asked).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), APP);
        assert_eq!(answer.header("access-control-allow-methods"), "PUT");
        assert_eq!(answer.header("access-control-allow-headers"), "content-type");
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert_eq!(answer.header("access-control-max-age"), "600");
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Access-Control-Request-Method, Access-Control-Request-Headers", "Origin"]);
        assert!(!answer.headers.contains_key("content-length"));
    }
    let elsewhere = ask(&gateway, "OPTIONS", "/x", &[("Origin", "https://evil.example"), put]).await;
    assert_eq!(elsewhere.status, 403);
    assert_eq!(elsewhere.json()["type"], "urn:problem-type:gateway:origin_not_allowed");
    assert!(!elsewhere.headers.contains_key("access-control-allow-origin"));
    let of_a_route = [("Origin", "https://any.example"), ("Access-Control-Request-Method", "DELETE")];
    let answer = ask(&gateway, "OPTIONS", "/only", &of_a_route).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, "*"));
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn cors_fields_are_on_responses_and_local_replies() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Header("access-control-allow-origin", "*"));
    let gateway = Gateway::start(&[&origin], Setup { tables: TABLES, ..Setup::default() }).await;
    let answer = ask(&gateway, "GET", "/anything", &[("Origin", APP)]).await;
    let allowed: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
    assert_eq!(answer.status, 200);
    assert_eq!(allowed, [APP]);
    assert_eq!(answer.header("access-control-expose-headers"), "x-total");
    assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{answer:?}");

    let elsewhere = ask(&gateway, "GET", "/anything", &[("Origin", "https://evil.example")]).await;
    assert_eq!(elsewhere.status, 200, "it is for the browser to keep it from the page");
    assert!(!elsewhere.headers.contains_key("access-control-allow-origin"));
    assert!(elsewhere.headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{elsewhere:?}");

    let refused = ask(&gateway, "GET", "/anything", &[("Origin", APP)]).await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (429, APP));
    assert!(refused.headers.get_all("vary").iter().any(|vary| vary == "Origin"), "{refused:?}");
}

#[tokio::test]
async fn options_request_without_preflight_reaches_the_backend() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&[&origin], Setup { tables: TABLES, ..Setup::default() }).await;
    ask(&gateway, "OPTIONS", "/anything", &[("Origin", APP)]).await;
    assert_eq!(origin.count("/anything"), 1);
}
