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
    expect!(answer.status, 200, "the upstream speaks TLS, proves to be origin.test, and answers");
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
    expect!(answer.status, 502, "an upstream that proves to be impostor.test is not origin.test");
    expect!(impostor.received().len(), 0, "how many requests the impostor has got to see");
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
    expect!(answer.status, 502, "a certificate from an authority that is not trusted proves nothing");
    expect!(impostor.received().len(), 0, "how many requests the impostor has got to see");
}
