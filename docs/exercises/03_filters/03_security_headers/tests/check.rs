//! Checks that every response has the security headers.

use ex0303::{HEADERS, SecurityHeaders};
use testkit::{Behaviour, Client, Origin, dead_address, expect, serve};

#[tokio::test]
async fn responses_of_an_upstream_have_the_fields() {
    let origin = Origin::start().await;
    let proxy = serve(SecurityHeaders { upstream: origin.address() });
    for path in ["/", "/status/404"] {
        let answer = Client::new().get(proxy.url(path)).await;
        for (name, value) in HEADERS {
            expect!(answer.header(name), value, "{name} on the upstream's answer to GET {path}");
        }
        expect!(answer.header("x-origin"), origin.label(), "x-origin, which stays as it is");
    }
}

#[tokio::test]
async fn fields_of_an_upstream_are_replaced() {
    let origin = Origin::start().await;
    origin.behave(Behaviour::Header("referrer-policy", "unsafe-url"));
    let proxy = serve(SecurityHeaders { upstream: origin.address() });
    let answer = Client::new().get(proxy.url("/")).await;
    let values: Vec<_> = answer.headers.get_all("referrer-policy").iter().collect();
    expect!(values, ["no-referrer"], "Referrer-Policy, when the upstream says unsafe-url");
}

#[tokio::test]
async fn errors_of_the_proxy_have_the_fields() {
    let proxy = serve(SecurityHeaders { upstream: dead_address() });
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.status, 502, "GET / of an upstream that is dead");
    for (name, value) in HEADERS {
        expect!(answer.header(name), value, "{name} on the 502 that the proxy makes itself");
    }
}
