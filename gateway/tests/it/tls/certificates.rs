//! Certificates by SNI, their key types, and errors about their files.

use openssl::pkey::Id;
use openssl::ssl::SslVersion;
use testkit::tls::{Authority, handshake, return_visit};
use testkit::{Origin, Process, exchange, exchange_over};

use super::{Host, anyhow, config, get, shown, shows, simple, start, status, subject};
use crate::support::{ConfigFile, GATEWAY, Gateway};

#[tokio::test]
async fn each_client_is_shown_what_it_asks_for() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let [web, wild, other] = ["web.test", "*.wild.test", "other.test"].map(|name| authority.issue(name));
    let hosts = [
        shows("web.test", &web).with("aliases = [\"www.web.test\"]"),
        shows("*.wild.test", &wild),
        shows("other.test", &other).with("default = true"),
        Host::new("plain.test", ""),
    ];
    let gateway = start(&origin, &hosts).await;
    let address = gateway.https().await;
    for (name, expected) in [
        (Some("web.test"), "web.test"),
        (Some("WWW.web.test"), "web.test"),
        (Some("a.wild.test"), "*.wild.test"),
        (Some("other.test"), "other.test"),
        (Some("plain.test"), "other.test"),
        (Some("unknown.test"), "other.test"),
        (None, "other.test"),
    ] {
        assert_eq!(shown(address, name).await.as_deref(), Ok(expected), "{name:?}");
    }
    let listed = gateway.read("/certificates").await["shown"].take();
    let domains: Vec<&str> =
        listed.as_array().unwrap().iter().map(|one| one["virtual_host"].as_str().unwrap()).collect();
    assert_eq!(domains, ["web.test", "*.wild.test", "other.test"]);
    assert_eq!((&listed[1]["names"][0], &listed[1]["key"]), (&"*.wild.test".into(), &"ecdsa".into()));
    // A virtual host without a certificate is served to clients that accept another name's certificate.
    assert_eq!(status(&get(address, "plain.test", "plain.test", "").await), 200);
    let text = gateway.monitor("/metrics").await.text();
    assert!(text.contains("proxy_tls_handshakes_total{result=\"ok\"} 8"), "{text}");
    for family in ["not_before", "not_after"] {
        let series =
            format!("proxy_certificate_{family}_timestamp_seconds{{key=\"ecdsa\",vhost=\"web.test\"}}");
        assert!(text.contains(&series), "{text}");
    }
}

#[tokio::test]
async fn unknown_name_without_default_fails_the_handshake() {
    let (_origin, gateway) = simple().await;
    let address = gateway.https().await;
    assert!(shown(address, Some("unknown.test")).await.is_err());
    assert!(shown(address, None).await.is_err());
    assert_eq!(gateway.metric("proxy_tls_handshakes_total{result=\"failed\"}").await, 2.0);
    // Bytes that are no TLS must not affect other clients. If they are an HTTP request, the client gets a response.
    for (tries, answer) in [(&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 400 "), (b"\x01\x02", "")] {
        let answered = exchange(address, tries).await;
        assert!(answered.starts_with(answer) && answered.is_empty() == answer.is_empty(), "{answered}");
    }
    assert_eq!(shown(address, Some("web.test")).await.as_deref(), Ok("web.test"));
}

#[tokio::test]
async fn rsa_and_ecdsa_stand_side_by_side() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let (rsa, ecdsa) = (authority.issue_rsa("web.test"), authority.issue("web.test"));
    let keys = format!(
        "cert_file = [\"{}\", \"{}\"]\nkey_file = [\"{}\", \"{}\"]\n",
        rsa.certificate_file().display(),
        ecdsa.certificate_file().display(),
        rsa.key_file().display(),
        ecdsa.key_file().display()
    );
    let gateway = start(&origin, &[Host::new("web.test", keys)]).await;
    let address = gateway.https().await;
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (algorithms, kind) in [
            ("ECDSA+SHA256", Id::EC),
            ("RSA-PSS+SHA256:RSA+SHA256", Id::RSA),
            ("ECDSA+SHA256:RSA-PSS+SHA256", Id::EC),
        ] {
            let stream = handshake(address, Some("web.test"), |tls| {
                tls.set_sigalgs_list(algorithms)?;
                tls.set_max_proto_version(Some(version))
            });
            let stream = stream.await.unwrap();
            let key = stream.ssl().peer_certificate().unwrap().public_key().unwrap();
            assert_eq!(key.id(), kind, "{algorithms} {version:?}");
            assert_eq!(subject(stream.ssl()), "web.test");
        }
    }
}

#[tokio::test]
async fn old_versions_and_weak_ciphers_are_refused() {
    let (_origin, gateway) = simple().await;
    let address = gateway.https().await;
    for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
        let refused = handshake(address, Some("web.test"), |tls| {
            tls.set_cipher_list("ALL:@SECLEVEL=0")?;
            tls.set_min_proto_version(Some(version))?;
            tls.set_max_proto_version(Some(version))
        });
        assert!(refused.await.is_err(), "{version:?}");
    }
    for ciphers in ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "kRSA", "ECDHE-ECDSA-AES128-SHA256"] {
        let refused = handshake(address, Some("web.test"), |tls| {
            tls.set_cipher_list(ciphers)?;
            tls.set_max_proto_version(Some(SslVersion::TLS1_2))
        });
        assert!(refused.await.is_err(), "{ciphers}");
    }
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let accepted = handshake(address, Some("web.test"), |tls| tls.set_max_proto_version(Some(version)));
        assert!(accepted.await.is_ok(), "{version:?}");
    }
}

#[tokio::test]
async fn tls_session_is_resumed() {
    let (_origin, gateway) = simple().await;
    let address = gateway.https().await;
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let request = b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
        let visit =
            return_visit(address, ["web.test"; 2], request, |tls| tls.set_max_proto_version(Some(version)));
        let (resumed, answer) = visit.await.unwrap();
        assert!(resumed && status(&answer) == 200, "{version:?}: {resumed} {answer}");
    }
}

#[tokio::test]
async fn certificate_file_error_names_its_place() {
    let authority = Authority::new();
    let (one, other) = (authority.issue("one.test"), authority.issue("other.test"));
    let origin = "127.0.0.1:3001".parse().unwrap();
    for (certificate, key, place, expected) in [
        ("/no/such.crt".into(), one.key_file(), "17:13", "cannot read '/no/such.crt'"),
        (one.certificate_file(), other.key_file(), "18:12", "is not the key of the certificate in"),
        (one.key_file(), one.key_file(), "17:13", "holds no certificate"),
    ] {
        let keys = format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", certificate.display(), key.display());
        let file = ConfigFile::new(&config(origin, "", &[Host::new("one.test", keys)]));
        let path = file.path().display().to_string();
        let (status, output) = Process::run(GATEWAY, &["check", "--config", &path], &[]).await;
        assert_eq!(status, Some(1), "{output}");
        assert!(output.contains(expected) && output.contains(&format!("{path}:{place}: ")), "{output}");
    }
}

#[tokio::test]
async fn dev_cert_works_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().display().to_string();
    let arguments = ["dev-cert", "localhost", "*.dev.test", "127.0.0.1", "--out", &out];
    let (status_code, output) = Process::run(GATEWAY, &arguments, &[]).await;
    assert_eq!(status_code, Some(0), "{output}");
    let origin = Origin::start().await;
    let text = config(origin.address(), "", &[Host::new("localhost", output.clone())]);
    let gateway = Gateway::start_with_config(&text).await;
    let address = gateway.https().await;
    // The client trusts this certificate because of its configuration, and only for the names in it.
    let trusting = |tls: &mut openssl::ssl::SslConnectorBuilder| {
        tls.set_verify(openssl::ssl::SslVerifyMode::PEER);
        tls.set_ca_file(directory.path().join("localhost.crt"))
    };
    let stream = handshake(address, Some("localhost"), trusting).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&exchange_over(stream, request).await), 200);
    let (again, output) = Process::run(GATEWAY, &arguments, &[]).await;
    assert!(again == Some(1) && output.contains("existing files are not replaced"), "{output}");
    assert!(handshake(address, Some("localhost"), anyhow).await.is_ok());
}
