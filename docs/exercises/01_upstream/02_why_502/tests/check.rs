//! Checks that an upstream that speaks TLS is reached, and that an upstream that cannot prove its name is not.

use ex0102::WhyBadGateway;
use testkit::tls::Authority;
use testkit::{Client, Origin, expect, serve};

#[tokio::test]
async fn the_upstream_is_reached_over_tls() {
    let authority = Authority::new();
    let origin = Origin::start_tls(&authority.issue("origin.test")).await;
    let proxy = serve(WhyBadGateway {
        upstream: origin.address(),
        name: "origin.test".to_owned(),
        authority: authority.certificate(),
    });
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.status, 200, "GET / of an upstream with TLS and a certificate for origin.test");
}

#[tokio::test]
async fn an_upstream_with_another_name_stays_a_502() {
    let authority = Authority::new();
    let impostor = Origin::start_tls(&authority.issue("impostor.test")).await;
    let proxy = serve(WhyBadGateway {
        upstream: impostor.address(),
        name: "origin.test".to_owned(),
        authority: authority.certificate(),
    });
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.status, 502, "GET / of an upstream whose certificate is for impostor.test");
    expect!(impostor.received().len(), 0, "how many requests the impostor got");
}

#[tokio::test]
async fn an_upstream_with_an_untrusted_certificate_stays_a_502() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let impostor = Origin::start_tls(&stranger.issue("origin.test")).await;
    let proxy = serve(WhyBadGateway {
        upstream: impostor.address(),
        name: "origin.test".to_owned(),
        authority: authority.certificate(),
    });
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.status, 502, "GET / of an upstream whose certificate is from an untrusted authority");
    expect!(impostor.received().len(), 0, "how many requests the impostor got");
}
