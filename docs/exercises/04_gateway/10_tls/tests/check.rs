//! Checks that HTTPS works for clients that trust the authority, and that the upstream is told about HTTPS.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use ex0410::{TlsProxy, listen};
use http::Request;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;
use testkit::tls::{Authority, Identity};
use testkit::{Client, Origin, ServedProxy, expect, serve, serve_on};

fn proxy(origin: &Origin, identity: &Identity) -> ServedProxy {
    let (certificate, key) = (identity.certificate_file(), identity.key_file());
    serve_on(TlsProxy { upstream: origin.address() }, |service, address| {
        let listens = listen(service, address, certificate.to_str().unwrap(), key.to_str().unwrap());
        expect!(
            listens.map_err(|error| error.to_string()),
            Ok(()),
            "listen() with a certificate and its key"
        );
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
    let what = "X-Forwarded-Proto at the upstream, when a client over TLS has sent `http`";
    expect!(told(&origin)[1], ["https"], "{what}");
}

/// Returns the values of X-Forwarded-Proto in each request at the upstream.
fn told(origin: &Origin) -> Vec<Vec<String>> {
    let told = |headers: &http::HeaderMap| {
        let values = headers.get_all("x-forwarded-proto").iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    origin.received().iter().map(|request| told(&request.headers)).collect()
}

#[tokio::test]
async fn plain_http_is_told_as_such() {
    let origin = Origin::start().await;
    // The same proxy, on a listener without TLS.
    let proxy = serve(TlsProxy { upstream: origin.address() });
    let request = Request::get(proxy.url("/")).header("X-Forwarded-Proto", "https").body(Default::default());
    Client::new().send(request.unwrap()).await;
    let what = "X-Forwarded-Proto at the upstream, when a client without TLS has sent `https`";
    expect!(told(&origin)[0], ["http"], "{what}");
}

#[test]
fn wrong_files_are_refused() {
    let authority = Authority::new();
    let (here, other) = (authority.issue("localhost"), authority.issue("localhost"));
    let rsa = authority.issue_rsa("localhost");
    let missing = PathBuf::from("missing.pem");
    for (what, certificate, key) in [
        ("the key of another certificate", here.certificate_file(), other.key_file()),
        ("a key of another kind", here.certificate_file(), rsa.key_file()),
        ("a certificate in place of the key", here.certificate_file(), here.certificate_file()),
        ("a key that is missing", here.certificate_file(), missing.clone()),
        ("a certificate that is missing", missing, here.key_file()),
    ] {
        let proxy = TlsProxy { upstream: ([127, 0, 0, 1], 1).into() };
        let mut service = http_proxy_service(&Arc::new(ServerConf::default()), proxy);
        let listens = catch_unwind(AssertUnwindSafe(|| {
            let listens =
                listen(&mut service, "127.0.0.1:0", certificate.to_str().unwrap(), key.to_str().unwrap());
            if listens.is_ok() { "it listens" } else { "an error" }
        }));
        expect!(listens.unwrap_or("a panic"), "an error", "listen() with {what}");
    }
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
