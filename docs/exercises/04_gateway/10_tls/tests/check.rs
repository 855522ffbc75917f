//! Checks that HTTPS works for clients that trust the authority, and that the upstream is told about HTTPS.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "in a test, a panic is the report")]

use ex0410::{TlsProxy, listen};
use http::Request;
use testkit::tls::{Authority, Identity};
use testkit::{Client, Origin, ServedProxy, expect, serve_on};

fn proxy(origin: &Origin, identity: &Identity) -> ServedProxy {
    let (certificate, key) = (identity.certificate_file(), identity.key_file());
    serve_on(TlsProxy { upstream: origin.address() }, |service, address| {
        listen(service, address, certificate.to_str().unwrap(), key.to_str().unwrap()).unwrap();
    })
}

#[tokio::test]
async fn https_is_answered_and_the_upstream_told() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = proxy(&origin, &authority.issue("localhost"));
    let url = format!("https://localhost:{}/", proxy.address().port());
    let client = Client::trusting(&authority);
    expect!(client.status(&url).await, Ok(200), "GET {url}");
    expect!(origin.received()[0].header("x-forwarded-proto"), "https", "X-Forwarded-Proto at the upstream");

    let request = Request::get(&url).header("X-Forwarded-Proto", "http").body(Default::default()).unwrap();
    client.send(request).await;
    let received = origin.received();
    let told: Vec<_> = received[1].headers.get_all("x-forwarded-proto").iter().collect();
    expect!(told, ["https"], "X-Forwarded-Proto at the upstream, when the client has sent `http`");
}

#[tokio::test]
async fn the_certificate_is_the_given_one() {
    let (authority, stranger, origin) = (Authority::new(), Authority::new(), Origin::start().await);
    let proxy = proxy(&origin, &authority.issue("localhost"));
    let url = format!("https://localhost:{}/", proxy.address().port());
    let refused =
        Client::trusting(&stranger).status(&url).await.expect_err("an error for an untrusted certificate");
    expect!(refused, contains "certificate verify failed", "GET {url} by a client that trusts another authority");
}

#[tokio::test]
async fn plain_http_is_not_answered_as_https() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = proxy(&origin, &authority.issue("localhost"));
    let plain = Client::new().status(proxy.url("/")).await;
    expect!(plain.is_err(), true, "a GET over plain HTTP fails (it was {plain:?})");
}
