//! Hosts without a certificate, where HTTPS is spoken: who is shown a self-signed one, and how it is seen.

use testkit::tls::Authority;
use testkit::{Origin, Process};

use super::{Host, config, get, shown, shows, start, status};
use crate::support::{ConfigFile, GATEWAY, Gateway};

#[tokio::test]
async fn a_host_without_a_certificate_is_shown_with_a_self_signed_one_and_that_is_told() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let identity = authority.issue("web.test");
    let hosts = [shows("web.test", &identity), Host::new("bare.test", ""), Host::new("*.wild.test", "")];
    let text = config(origin.address(), "", &hosts);
    let gateway = Gateway::start_with_config(&text).await;
    let address = gateway.https().await;
    for (name, expected) in
        [("web.test", "web.test"), ("bare.test", "bare.test"), ("a.wild.test", "*.wild.test")]
    {
        assert_eq!(shown(address, Some(name)).await.as_deref(), Ok(expected));
        assert_eq!(status(&get(address, name, name, "").await), 200);
    }
    // Nobody serves these.
    assert!(shown(address, Some("other.test")).await.is_err() && shown(address, None).await.is_err());

    for host in ["bare.test", "*.wild.test"] {
        gateway.process.line(&format!("virtual host '{host}' has no certificate")).await;
    }
    assert_eq!(gateway.metric("proxy_self_signed_certificates").await, 2.0);
    let listed = gateway.read("/certificates").await["shown"].take();
    let marks: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["self_signed"] == true).collect();
    assert_eq!(marks, [false, true, true]);

    // Clients that were told to trust it go on to, whatever else changes.
    let before = listed[1]["not_after"].clone();
    gateway.edit(&text.replace("enabled = false", "enabled = false\ninterval_secs = 7"));
    gateway.process.line("configuration").await;
    let after = gateway.read("/certificates").await["shown"][1]["not_after"].clone();
    assert_eq!(before, after);

    let file = ConfigFile::new(&text);
    let (code, said) = Process::run(GATEWAY, &["check", "-c", &file.path().display().to_string()], &[]).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("warning: virtual host 'bare.test' has no certificate"), "{said}");
}

#[tokio::test]
async fn what_a_wildcard_the_default_or_the_catch_all_covers_needs_none() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let [wild, default] = ["*.a.test", "default.test"].map(|name| authority.issue(name));
    let hosts = [shows("*.a.test", &wild), Host::new("x.a.test", ""), Host::new("b.test", "")];
    let gateway = start(&origin, &hosts).await;
    let address = gateway.https().await;
    assert_eq!(shown(address, Some("x.a.test")).await.as_deref(), Ok("*.a.test"));
    assert_eq!(shown(address, Some("b.test")).await.as_deref(), Ok("b.test"));
    assert_eq!(gateway.metric("proxy_self_signed_certificates").await, 1.0);

    let hosts = [shows("default.test", &default).with("default = true"), Host::new("b.test", "")];
    let gateway = start(&origin, &hosts).await;
    assert_eq!(shown(gateway.https().await, Some("b.test")).await.as_deref(), Ok("default.test"));
    assert_eq!(gateway.metric("proxy_self_signed_certificates").await, 0.0);
}

#[tokio::test]
async fn it_can_be_refused() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let identity = authority.issue("web.test");
    let off = "self_signed = false";
    let text = config(origin.address(), off, &[Host::new("bare.test", "")]);
    let file = ConfigFile::new(&text);
    let (code, said) = Process::run(GATEWAY, &["check", "-c", &file.path().display().to_string()], &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no virtual host has a certificate"), "{said}");

    let text = config(origin.address(), off, &[shows("web.test", &identity), Host::new("bare.test", "")]);
    let gateway = Gateway::start_with_config(&text).await;
    assert!(shown(gateway.https().await, Some("bare.test")).await.is_err());
    assert_eq!(gateway.metric("proxy_self_signed_certificates").await, 0.0);
}
