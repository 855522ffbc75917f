//! Whatever is answered bears the security headers.

use ex0303::{HEADERS, SecurityHeaders};
use testkit::{Client, Origin, expect, serve};

#[tokio::test]
async fn what_an_upstream_answers_bears_them() {
    let origin = Origin::start().await;
    let proxy = serve(SecurityHeaders { upstream: origin.address() });
    for path in ["/", "/status/404"] {
        let answer = Client::new().get(proxy.url(path)).await;
        for (name, value) in HEADERS {
            expect!(answer.header(name), value, "{name} on the upstream's answer to GET {path}");
        }
        expect!(answer.header("x-origin"), origin.label(), "the upstream's own fields are left alone");
    }
}

#[tokio::test]
async fn an_error_of_the_proxy_bears_them_too() {
    let proxy = serve(SecurityHeaders { upstream: Origin::dead().address() });
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.status, 502, "GET / of an upstream that is dead");
    for (name, value) in HEADERS {
        expect!(answer.header(name), value, "{name} on the proxy's own 502");
    }
}
