use bytes::Bytes;
use http::Request;
use testkit::{Client, Origin, Response, dead_address, exchange};

use crate::support::{Gateway, Setup, config};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn get(gateway: &Gateway, method: &str, path: &str, accept: &str) -> Response {
    let request = Request::builder().method(method).uri(gateway.url(path)).header("Accept", accept);
    Client::new().send(request.body(Bytes::new()).unwrap()).await
}

async fn nothing_behind(proxy: &str) -> Gateway {
    let tables = "[health_check]\nenabled = false\n[circuit_breaker]\nenabled = false\n[security_headers]\ncontent_security_policy = \"default-src 'self'\"";
    Gateway::start_over(&[dead_address()], Setup { proxy, tables }).await
}

#[tokio::test]
async fn a_problem_leads_to_its_explanation() {
    let gateway = nothing_behind("").await;
    let problem = get(&gateway, "GET", "/", "*/*").await;
    assert_eq!((problem.status.as_u16(), problem.header("content-type")), (502, "application/problem+json"));
    let link = "</.well-known/gateway/problems#bad_gateway>; rel=\"help\"";
    assert_eq!((problem.header("link"), problem.header("vary")), (link, "Accept"));

    let page = gateway.get("/.well-known/gateway/problems").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.text().contains("<div id=\"bad_gateway\">"), "{}", page.text());
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
    assert_eq!(page.header("x-content-type-options"), "nosniff", "as on any answer");
    let elsewhere = gateway.get_from("not.served.example", "/.well-known/gateway/problems").await;
    assert_eq!(elsewhere.status, 200, "on every host");
}

#[tokio::test]
async fn a_person_gets_a_page_and_a_program_json() {
    let gateway = nothing_behind("").await;
    let page = get(&gateway, "GET", "/", BROWSER).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (502, "text/html; charset=utf-8"));
    assert_eq!(page.header("proxy-status"), "gateway; error=connection_refused");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{page:?}");
    let text = page.text();
    assert!(text.contains("<h1>502 The backend failed</h1>"), "{text}");
    assert!(text.contains(page.header("x-request-id")), "{text}");
    let head = get(&gateway, "HEAD", "/", BROWSER).await;
    assert_eq!(head.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(head.header("content-length"), page.body.len().to_string(), "as long as GET's");
    for accept in ["application/json, text/html", "text/html;q=0.1, */*", "text/html;q=two", "nonsense"] {
        let json = get(&gateway, "GET", "/", accept).await;
        assert_eq!(json.header("content-type"), "application/problem+json", "{accept}");
        assert_eq!(json.header("content-security-policy"), "default-src 'self'", "{accept}");
    }
}

#[tokio::test]
async fn the_page_may_be_published_elsewhere() {
    let gateway = nothing_behind("problems_url = \"https://docs.example.com/problems.html\"").await;
    let problem = gateway.get("/").await;
    let link = "<https://docs.example.com/problems.html#bad_gateway>; rel=\"help\"";
    assert_eq!(problem.header("link"), link);
    let page = gateway.get("/.well-known/gateway/problems").await;
    assert_eq!(page.status, 502, "then it is a path like any other");
}

#[tokio::test]
async fn refusal_names_its_reason_in_proxy_status() {
    let origin = Origin::start().await;
    let text =
        config(&[origin.address()], Setup::default()).replace("domain = \"*\"", "domain = \"a.example\"");
    let gateway = Gateway::start_with_config(&text).await;
    let unknown = gateway.get("/").await;
    let status = "gateway; error=destination_not_found; details=\"unknown_host\"";
    assert_eq!((unknown.status.as_u16(), unknown.header("proxy-status")), (404, status));
    let malformed = exchange(gateway.address, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(malformed.contains("error=http_request_error; details=\"bad_request\""), "{malformed}");
    assert!(malformed.contains("nosniff"), "{malformed}");
}

#[tokio::test]
async fn injected_fault_may_have_no_body() {
    let origin = Origin::start().await;
    let tables = "[[virtual_hosts]]\ndomain = \"a.example\"\nenabled_backends_tag = \"all\"\n\
                  [[virtual_hosts.routes]]\npath_prefix = \"/\"\nfault = { abort_status = 204, abort_percent = 100 }\n";
    let gateway = Gateway::start(&[&origin], Setup { tables, ..Setup::default() }).await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    let answer = exchange(gateway.address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 204") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(!answer.to_lowercase().contains("content-length"), "{answer}");
}
