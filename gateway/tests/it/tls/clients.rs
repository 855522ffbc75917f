//! Client certificates: which clients are let in, which fields backends get, and attempts to bypass the check.

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnectorBuilder, SslFiletype, SslVersion};
use testkit::tls::{Authority, Identity, return_visit};
use testkit::{Origin, exchange};

use super::{Host, anyhow, config, get_with, shows, start, status};
use crate::support::Gateway;

fn showing(identity: &Identity) -> impl FnOnce(&mut SslConnectorBuilder) -> Result<(), ErrorStack> {
    let (certificate, key) = (identity.certificate_file(), identity.key_file());
    move |tls| {
        tls.set_certificate_chain_file(certificate)?;
        tls.set_private_key_file(key, SslFiletype::PEM)
    }
}

fn asks(authority: &Authority, how: &str) -> String {
    let file = authority.certificate_file();
    format!("client_ca_file = \"{}\"\nclient_certificate = \"{how}\"", file.display())
}

#[tokio::test]
async fn client_certificate_required_or_optional_reaches_backend() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let origin = Origin::start().await;
    let [must, may] = ["must.test", "may.test"].map(|name| authority.issue(name));
    let hosts = [
        shows("must.test", &must).with(&asks(&authority, "required")),
        shows("may.test", &may).with(&asks(&authority, "optional")),
    ];
    let gateway = start(&origin, &hosts).await;
    let address = gateway.https().await;
    let (alice, mallory) = (authority.issue("alice"), stranger.issue("alice"));
    // A client without a required certificate gets an HTTP response that says so.
    let nobody = get_with(address, "must.test", "must.test", "", anyhow).await.unwrap();
    assert!(status(&nobody) == 403 && nobody.contains("showed none"), "{nobody}");
    let forged = get_with(address, "must.test", "must.test", "", showing(&mallory)).await.unwrap();
    assert!(
        status(&forged) == 403 && forged.contains("the client certificate is not valid here"),
        "{forged}"
    );
    assert_eq!(origin.received().len(), 0);
    let claims = "X-Client-Cert-Subject: CN=root\r\nClient-Cert: :AA==:\r\nX-Client-Cert-Else: x\r\n";
    for (host, identity, subject) in [
        ("must.test", Some(&alice), "CN=alice"),
        ("may.test", Some(&alice), "CN=alice"),
        ("may.test", Some(&mallory), ""),
        ("may.test", None, ""),
    ] {
        origin.forget();
        let answer = match identity {
            Some(identity) => get_with(address, host, host, claims, showing(identity)).await,
            None => get_with(address, host, host, claims, anyhow).await,
        };
        assert_eq!(status(&answer.unwrap()), 200, "{host}");
        let received = origin.received();
        assert_eq!(received[0].header("x-client-cert-subject"), subject, "{host}");
        assert_eq!(received[0].header("client-cert").is_empty(), subject.is_empty(), "{host}");
        assert_eq!(received[0].header("x-client-cert-else"), "");
    }
    // A client without TLS cannot have a certificate.
    let answer =
        exchange(gateway.address, b"GET / HTTP/1.1\r\nHost: must.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 403, "{answer}");
}

#[tokio::test]
async fn client_certificate_check_is_not_bypassed_by_host() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let [open, must, theirs] = ["open.test", "must.test", "theirs.test"].map(|name| authority.issue(name));
    let others = Authority::new();
    let hosts = [
        shows("open.test", &open).with("default = true"),
        shows("must.test", &must).with(&asks(&authority, "required")),
        shows("theirs.test", &theirs).with(&asks(&others, "optional")),
    ];
    let gateway = start(&origin, &hosts).await;
    let address = gateway.https().await;
    let alice = authority.issue("alice");
    for (name, host, expected) in [
        ("open.test", "must.test", 421),
        ("theirs.test", "must.test", 421),
        ("unknown.test", "must.test", 421),
        ("must.test", "open.test", 421),
        ("must.test", "must.test", 200),
    ] {
        let answer = get_with(address, name, host, "", showing(&alice)).await.unwrap();
        assert_eq!(status(&answer), expected, "{name} {host}: {answer}");
    }
    // Without a server name, the client gets the default host, which asks for no certificate.
    let stream = testkit::tls::handshake(address, None, showing(&alice)).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: must.test\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&testkit::exchange_over(stream, request).await), 421);
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let version = |tls: &mut SslConnectorBuilder| tls.set_max_proto_version(Some(version));
        // A TLS session from another host, without a certificate, must not be resumed.
        let visit = return_visit(address, ["open.test", "must.test"], request, version).await;
        let (resumed, answer) = visit.unwrap();
        assert!(!resumed && status(&answer) == 403, "{resumed} {answer}");
        // A session with a certificate must not be resumed either: the gateway verifies the certificate again.
        let both = |tls: &mut SslConnectorBuilder| {
            version(tls)?;
            showing(&alice)(tls)
        };
        for (name, expected) in [("must.test", 200), ("theirs.test", 421)] {
            match return_visit(address, ["must.test", name], request, both).await {
                Ok((resumed, answer)) => assert!(!resumed && status(&answer) == expected, "{name}: {answer}"),
                Err(error) => assert_eq!(error, "the server sent no session"),
            }
        }
    }
}

#[tokio::test]
async fn other_authorities_hold_for_connections_that_are_open_already() {
    let (before, after) = (Authority::new(), Authority::new());
    let origin = Origin::start().await;
    let server = before.issue("must.test");
    let text = |authority| {
        config(origin.address(), "", &[shows("must.test", &server).with(&asks(authority, "required"))])
    };
    let gateway = Gateway::start_with_config(&text(&before)).await;
    let alice = before.issue("alice");
    let mut stream =
        testkit::tls::handshake(gateway.https().await, Some("must.test"), showing(&alice)).await.unwrap();
    let keep = b"GET / HTTP/1.1\r\nHost: must.test\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, keep).await.unwrap();
    testkit::eventually!(origin.received().len() == 1);
    gateway.edit(&text(&after));
    gateway.process.line("a new configuration was applied").await;
    let close = b"GET / HTTP/1.1\r\nHost: must.test\r\nConnection: close\r\n\r\n";
    let answers = testkit::exchange_over(stream, close).await;
    assert!(answers.starts_with("HTTP/1.1 200 ") && answers.contains("HTTP/1.1 421 "), "{answers}");
}

#[tokio::test]
async fn host_awaiting_its_certificate_serves_no_request() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let cache = tempfile::tempdir().unwrap();
    // No ACME server will issue this certificate.
    let acme = format!(
        "[lets_encrypt]\ndirectory_url = \"https://127.0.0.1:1/dir\"\ncache_dir = \"{}\"\n",
        cache.path().display()
    );
    let host = Host::new("must.test", format!("acme = true\n{}\n", asks(&authority, "required")));
    let text = format!("{}{acme}", config(origin.address(), "", &[host]));
    let gateway = Gateway::start_with_config(&text).await;
    let request = b"GET / HTTP/1.1\r\nHost: must.test\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&exchange(gateway.address, request).await), 403);
    assert!(get_with(gateway.https().await, "must.test", "must.test", "", anyhow).await.is_err());
    assert!(origin.received().is_empty());
}
