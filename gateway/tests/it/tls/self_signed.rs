//! Virtual hosts without a certificate on an HTTPS listener: the self-signed certificates that they get, and
//! how these are reported.

use testkit::tls::Authority;
use testkit::{Origin, Process};

use super::{Host, config, get, shown, shows, start, status};
use crate::support::{ConfigFile, GATEWAY, Gateway};

#[tokio::test]
async fn host_without_certificate_gets_a_self_signed_one() {
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
    // No virtual host has these names.
    assert!(shown(address, Some("other.test")).await.is_err() && shown(address, None).await.is_err());

    for host in ["bare.test", "*.wild.test"] {
        gateway.process.line(&format!("virtual host '{host}' has no certificate")).await;
    }
    assert_eq!(gateway.metric("proxy_self_signed_certificates").await, 2.0);
    let listed = gateway.read("/certificates").await["shown"].take();
    let marks: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["self_signed"] == true).collect();
    assert_eq!(marks, [false, true, true]);

    // Clients that were told to trust the certificate must be able to go on after unrelated changes.
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
async fn covered_host_gets_no_self_signed_certificate() {
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
async fn self_signed_certificates_can_be_disabled() {
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
