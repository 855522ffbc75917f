//! Certificates that are replaced while clients connect.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use testkit::tls::{Authority, Identity};
use testkit::{Origin, Signal, eventually, exchange_over};

use super::{anyhow, config, get, shown, shows, start, status};

/// Replaces the files of `served` with those of `new`, as certificate tools do: each file atomically.
fn replace(served: &Identity, new: &Identity) {
    let put = |from: &Path, to: &Path| {
        let draft = to.with_extension("draft");
        std::fs::copy(from, &draft).unwrap();
        std::fs::rename(&draft, to).unwrap();
    };
    put(&new.certificate_file(), &served.certificate_file());
    put(&new.key_file(), &served.key_file());
}

#[tokio::test]
async fn a_new_certificate_is_shown_as_soon_as_its_files_are_there() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let served = authority.issue("web.test");
    let gateway = start(&origin, &[shows("web.test", &served)]).await;
    let address = gateway.https().await;
    assert_eq!(shown(address, Some("web.test")).await.as_deref(), Ok("web.test"));
    let mut open = testkit::tls::handshake(address, Some("web.test"), anyhow).await.unwrap();
    replace(&served, &authority.issue_rsa("web2.test"));
    eventually!(shown(address, Some("web.test")).await.as_deref() == Ok("web2.test"));
    gateway.process.line("a new certificate is shown").await;
    let text = gateway.monitor("/metrics").await.text();
    assert!(text.contains("key=\"rsa\"") && !text.contains("key=\"ecdsa\""), "{text}");
    // A client that was connected before must still be served.
    let request = b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&exchange_over(&mut open, request).await), 200);
}

#[tokio::test]
async fn half_a_pair_changes_nothing_and_is_said() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let served = authority.issue("web.test");
    let gateway = start(&origin, &[shows("web.test", &served)]).await;
    let address = gateway.https().await;
    let next = authority.issue("web2.test");
    std::fs::copy(next.certificate_file(), served.certificate_file()).unwrap();
    gateway.process.line("is not the key of the certificate in").await;
    eventually!(gateway.metric("proxy_config_last_reload_successful").await == 0.0);
    assert_eq!(shown(address, Some("web.test")).await.as_deref(), Ok("web.test"));
    gateway.process.signal(Signal::SIGHUP);
    assert_eq!(shown(address, Some("web.test")).await.as_deref(), Ok("web.test"));
    std::fs::copy(next.key_file(), served.key_file()).unwrap();
    eventually!(shown(address, Some("web.test")).await.as_deref() == Ok("web2.test"));
    eventually!(gateway.metric("proxy_config_last_reload_successful").await == 1.0);
}

#[tokio::test]
async fn another_file_in_the_configuration_is_another_certificate() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let (first, second) = (authority.issue("web.test"), authority.issue("web2.test"));
    let gateway = start(&origin, &[shows("web.test", &first)]).await;
    let address = gateway.https().await;
    gateway.edit(&config(origin.address(), "", &[shows("web.test", &second)]));
    eventually!(shown(address, Some("web.test")).await.as_deref() == Ok("web2.test"));
    // The gateway must watch the new files like the old ones.
    replace(&second, &authority.issue("web3.test"));
    eventually!(shown(address, Some("web.test")).await.as_deref() == Ok("web3.test"));
}

/// Replaces certificates fifty times under load. No handshake may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_replacement_under_load_fails_no_handshake() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    let served = authority.issue("web.test");
    let gateway = start(&origin, &[shows("web.test", &served)]).await;
    let address = gateway.https().await;
    let (ended, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (ended, done) = (ended.clone(), done.clone());
            tokio::spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    let answer = get(address, "web.test", "web.test", "").await;
                    assert_eq!(status(&answer), 200, "{answer}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let next = ["even.test", "odd.test"].map(|name| authority.issue(name));
    for round in 0..50 {
        let name = if round % 2 == 0 { "even.test" } else { "odd.test" };
        replace(&served, &next[round % 2]);
        eventually!(shown(address, Some("web.test")).await.as_deref() == Ok(name), "round {round}");
    }
    ended.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(done.load(Ordering::Relaxed) > 50, "{done:?}");
    assert_eq!(gateway.metric("proxy_tls_handshakes_total{result=\"failed\"}").await, 0.0);
    eprintln!("{} handshakes and requests during 50 replacements, none failed", done.load(Ordering::Relaxed));
}

#[tokio::test]
async fn certificate_for_another_name_is_warned_of() {
    let authority = Authority::new();
    let origin = Origin::start().await;
    // A certificate for another name causes the same kind of warning, and needs no waiting.
    let other = authority.issue("other.test");
    let gateway = start(&origin, &[shows("web.test", &other)]).await;
    gateway.process.line("a certificate of virtual host 'web.test' is not for 'web.test'").await;
    assert_eq!(shown(gateway.https().await, Some("web.test")).await.as_deref(), Ok("other.test"));
}
