//! Effects of HTTPS: redirects, cookies, and header fields about the scheme.

use testkit::tls::Authority;
use testkit::{Behaviour, Origin, exchange, exchange_from};

use super::{config, get, shows, start, status};
use crate::support::Gateway;

fn plain(fields: &str) -> String {
    format!(
        "POST /anything/b?c=d HTTP/1.1\r\nHost: web.test:8080\r\nContent-Length: 1\r\nConnection: close\r\n{fields}\r\nx"
    )
}

#[tokio::test]
async fn plain_http_is_redirected_to_https() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let identity = authority.issue("web.test");
    let host = shows("web.test", &identity).with("http_to_https = true");
    let gateway = Gateway::start_with_config(&config(origin.address(), "https_port = 8443", &[host])).await;
    let https = gateway.https().await;
    let answer = exchange(gateway.address, plain("").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 308 ")
            && answer.contains("location: https://web.test:8443/anything/b?c=d\r\n"),
        "{answer}"
    );
    assert_eq!(status(&get(https, "web.test", "web.test", "").await), 200);
    // The gateway must ignore the client's claim about the scheme.
    let answer = exchange(gateway.address, plain("X-Forwarded-Proto: https\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 308);
}

#[tokio::test]
async fn behind_a_load_balancer_that_speaks_tls_there_is_no_loop() {
    let origin = Origin::start().await;
    let text = format!(
        "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api_addr = \"127.0.0.1:0\"\n\
         trusted_proxies = [\"127.0.0.2\"]\n[metrics]\nlisten_addr = \"127.0.0.1:0\"\n[health_check]\nenabled = false\n\
         [security_headers]\nstrict_transport_security = \"max-age=63072000\"\n\
         [[virtual_hosts]]\ndomain = \"web.test\"\nenabled_backends_tag = \"all\"\nhttp_to_https = true\n\
         [[backends]]\nid = \"one\"\naddress = \"{}\"\ntags = [\"all\"]\n",
        origin.address()
    );
    let gateway = Gateway::start_with_config(&text).await;
    let from = |source: &'static str, fields: &'static str| {
        let request = plain(fields);
        let address = gateway.address;
        async move { exchange_from(source.parse().unwrap(), address, request.as_bytes()).await }
    };
    let answer =
        from("127.0.0.2", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n").await.to_lowercase();
    assert!(
        status(&answer) == 200 && answer.contains("strict-transport-security: max-age=63072000"),
        "{answer}"
    );
    let received = origin.received();
    assert_eq!(received[0].header("x-forwarded-proto"), "https");
    assert_eq!(received[0].header("x-forwarded-for"), "192.0.2.7");
    let answer = from("127.0.0.2", "X-Forwarded-Proto: http\r\n").await;
    assert!(answer.contains("location: https://web.test/anything/b?c=d\r\n"), "{answer}");
    assert!(!answer.contains("strict-transport-security"), "{answer}");
    assert_eq!(status(&from("127.0.0.3", "X-Forwarded-Proto: https\r\n").await), 308);
}

#[tokio::test]
async fn security_headers_are_on_responses_and_local_replies() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let identity = authority.issue("web.test");
    let host = shows("web.test", &identity).with(
        "[virtual_hosts.security_headers]\nstrict_transport_security = \"max-age=1\"\nreferrer_policy = \"\"",
    );
    let gateway = start(&origin, &[host]).await;
    let https = gateway.https().await;
    origin.behave(Behaviour::Header("x-frame-options", "SAMEORIGIN"));
    let answer = get(https, "web.test", "web.test", "").await.to_ascii_lowercase();
    for line in [
        "strict-transport-security: max-age=1",
        "x-content-type-options: nosniff",
        "x-frame-options: sameorigin",
    ] {
        assert_eq!(answer.matches(&format!("{line}\r\n")).count(), 1, "{line}: {answer}");
    }
    assert!(!answer.contains("referrer-policy") && !answer.contains("x-frame-options: deny"), "{answer}");
    // Local replies have the fields, too. A reply for an unknown host uses the top-level table.
    let unknown = exchange(gateway.address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(unknown.contains("referrer-policy: strict-origin-when-cross-origin\r\n"), "{unknown}");
    assert!(!unknown.contains("strict-transport-security"), "{unknown}");
}

#[tokio::test]
async fn cookies_that_came_over_https_stay_there() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let identity = authority.issue("web.test");
    let host = shows("web.test", &identity).with("[virtual_hosts.balancing]\nsticky_cookie = \"stick\"");
    let gateway = Gateway::start_with_config(&config(origin.address(), "", &[host])).await;
    let answer = get(gateway.https().await, "web.test", "web.test", "").await;
    assert!(answer.contains("; HttpOnly; SameSite=Lax; Secure\r\n"), "{answer}");
    let plain =
        exchange(gateway.address, b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n").await;
    assert!(plain.contains("; HttpOnly; SameSite=Lax\r\n"), "{plain}");
    assert_eq!(origin.received().last().unwrap().header("x-forwarded-proto"), "http");
    assert_eq!(origin.received()[0].header("x-forwarded-proto"), "https");
}
