//! Certificates by ACME, from Pebble, a real ACME server made for tests.

mod pebble;
mod scene;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use gateway::config::ChallengeKind::{Http01, TlsAlpn01};
use gateway::tls::acme::{AcmeState, Certificate};
use openssl::x509::X509;
use pebble::{Options, Place};
use scene::{LONG, Scene};
use testkit::tls::{Authority, handshake};
use testkit::{Failure, Origin, eventually};

use crate::support::Gateway;
use crate::tls;

#[tokio::test]
async fn names_and_aliases_share_one_certificate_despite_bad_nonces() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let pebble =
        scene.pebble(Options { bad_nonces_percent: 50, validation_secs: 2, ..Options::default() }).await;
    scene.want(&[&["shop.example", "www.shop.example", "api.shop.example"]], Http01);
    let _service = scene.service();
    scene.valid("shop.example").await;
    let pem = scene.pem("shop.example");
    for name in ["shop.example", "www.shop.example", "api.shop.example"] {
        assert!(pebble.vouches_for(&pem, name).await, "{name}");
    }
    assert!(!pebble.vouches_for(&pem, "other.example").await);
    assert_eq!((pebble.orders(), pebble.issued(), pebble.accounts()), (1, 1, 1), "{}", pebble.output());
    for said in
        ["Configured to reject 50% of good nonces", "Setting maximum random VA sleep time to 2 seconds"]
    {
        assert!(pebble.output().contains(said), "{}", pebble.output());
    }
    assert_eq!(*scene.told.lock(), ["shop.example"]);
    let series = r#"proxy_acme_orders_total{result="issued",vhost="shop.example"} 1"#;
    assert!(scene.counted().contains(series), "{}", scene.counted());
}

#[tokio::test]
async fn name_is_validated_by_tls_alpn_handshake() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let pebble = scene.pebble(Options::default()).await;
    scene.want(&[&["shop.example", "www.shop.example"]], TlsAlpn01);
    let _service = scene.service();
    scene.valid("shop.example").await;
    assert!(pebble.vouches_for(&scene.pem("shop.example"), "www.shop.example").await);
    assert!(!scene.challenges.has_tls(), "nothing is answered any more");
}

/// Uses certificates that are valid for six seconds. The gateway renews them four seconds after they were issued.
#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let pebble = scene.pebble(Options { life_secs: 6, ..Options::default() }).await;
    scene.want(&[&["shop.example"]], Http01);
    let _service = scene.service();
    scene.valid("shop.example").await;
    let read = || Certificate::read(&scene.pem("shop.example")).unwrap();
    let (first, first_pem) = (read(), scene.pem("shop.example"));
    let life = first.not_after.duration_since(first.not_before).unwrap();
    assert!(life <= Duration::from_secs(6), "{life:?}");
    eventually!(within LONG, scene.told.lock().len() >= 3, "{}", pebble.output());
    assert!(read().not_after > first.not_after);
    assert_ne!(scene.pem("shop.example"), first_pem);
    assert!(pebble.orders() <= pebble.issued() + 1, "none was in vain: {}", pebble.output());
}

#[tokio::test]
async fn old_certificate_stays_until_the_acme_server_is_back() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let options = Options { life_secs: 6, ..Options::default() };
    let pebble = scene.pebble(options).await;
    scene.want(&[&["shop.example"], &["api.example"], &["cdn.example"]], Http01);
    let _service = scene.service();
    for domain in ["shop.example", "api.example", "cdn.example"] {
        scene.valid(domain).await;
    }
    pebble.kill().await;
    let failed = scene.failed("shop.example").await;
    let old = scene.pem("shop.example");
    let reason = failed.last_error.unwrap();
    assert!(reason.contains(&scene.place.directory_url()), "{reason}");
    assert!(failed.not_after.is_some(), "the old one is still there");
    eventually!(within LONG, scene.status("shop.example").unwrap().failures >= 3);
    assert_eq!(scene.pem("shop.example"), old);
    assert!(scene.counted().contains(r#"proxy_acme_orders_total{result="failed",vhost="shop.example"}"#));

    // The new server has no state of the old one, not even the account.
    let pebble = scene.pebble(Options::default()).await;
    scene.valid("shop.example").await;
    assert!(pebble.vouches_for(&scene.pem("shop.example"), "shop.example").await);
    for domain in ["api.example", "cdn.example"] {
        scene.valid(domain).await;
    }
    assert_eq!(pebble.accounts(), 1, "one for all of them: {}", pebble.output());
    let status = scene.status("shop.example").unwrap();
    assert_eq!((status.failures, status.last_error), (0, None));
}

#[tokio::test]
async fn an_order_that_breaks_off_in_the_middle_leaves_nothing_behind() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    // The server starts its checks late, so that the test can interrupt the order in the middle.
    let pebble = scene.pebble(Options { validation_secs: 15, ..Options::default() }).await;
    scene.want(&[&["shop.example"]], TlsAlpn01);
    let _service = scene.service();
    eventually!(within LONG, scene.challenges.has_tls());
    pebble.kill().await;
    scene.failed("shop.example").await;
    assert!(!scene.challenges.has_tls() && !scene.file("shop.example").exists());
    let _pebble = scene.pebble(Options::default()).await;
    scene.valid("shop.example").await;
}

#[tokio::test]
async fn unresolvable_name_fails_with_the_servers_error() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let pebble = scene.pebble(Options::default()).await;
    scene.want(&[&["shop.example", "lost.example"], &["well.example"]], Http01);
    scene.place.dns.fail("lost.example", Failure::NotFound);
    let _service = scene.service();
    let failed = scene.failed("shop.example").await;
    let reason = failed.last_error.unwrap();
    assert!(reason.starts_with("cannot have the names validated: "), "{reason}");
    assert!(reason.contains("lost.example: ") && !reason.contains("; shop.example: "), "{reason}");
    scene.valid("well.example").await;

    // The operator fixes the DNS record.
    scene.place.know("lost.example");
    scene.valid("shop.example").await;
    assert!(pebble.vouches_for(&scene.pem("shop.example"), "lost.example").await);
}

#[tokio::test]
async fn many_virtual_hosts_share_an_account_and_each_has_one_order() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let pebble = scene.pebble(Options { validation_secs: 1, ..Options::default() }).await;
    let domains = ["a.example", "b.example", "c.example", "d.example", "e.example", "f.example"];
    let wanted: Vec<[&str; 1]> = domains.iter().map(|domain| [*domain]).collect();
    let wanted: Vec<&[&str]> = wanted.iter().map(|names| &names[..]).collect();
    let _service = scene.service();
    // Each configuration change applies the plan again. An unchanged plan must not cause another order.
    let said_again = || {
        scene.want(&wanted, Http01);
        assert!(pebble.orders() <= domains.len(), "{}", pebble.output());
        pebble.issued() == domains.len()
    };
    eventually!(within LONG, said_again(), "{}", pebble.output());
    for domain in domains {
        scene.valid(domain).await;
    }
    assert_eq!((pebble.orders(), pebble.accounts()), (domains.len(), 1), "{}", pebble.output());
}

#[tokio::test]
async fn restart_orders_only_missing_certificates() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let pebble = scene.pebble(Options::default()).await;
    scene.want(&[&["a.example"]], Http01);
    let service = scene.service();
    scene.valid("a.example").await;
    drop(service);

    scene.want(&[&["a.example"], &["b.example"]], Http01);
    let _service = scene.service();
    scene.valid("b.example").await;
    scene.valid("a.example").await;
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 1), "one for each name, and one account");
    let ends = scene.status("a.example").unwrap().not_after.unwrap();
    assert!(ends > SystemTime::now() + Duration::from_secs(80 * 24 * 60 * 60));

    // An additional name needs a new certificate. The state of a domain that was removed must go.
    let before = scene.pem("a.example");
    scene.want(&[&["a.example", "www.a.example"]], Http01);
    eventually!(within LONG, scene.pem("a.example") != before);
    scene.valid("a.example").await;
    assert!(pebble.vouches_for(&scene.pem("a.example"), "www.a.example").await);
    assert_eq!(scene.status("b.example"), None);
    assert!(!scene.counted().contains("b.example"), "{}", scene.counted());
}

/// Covers the time in which an old gateway drains beside the new one.
#[tokio::test]
async fn two_processes_with_one_directory_make_one_order() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let pebble = scene.pebble(Options { validation_secs: 2, ..Options::default() }).await;
    scene.want(&[&["a.example"]], Http01);
    let _one = scene.service();
    let _other = scene.service();
    eventually!(within LONG, *scene.told.lock() == ["a.example"; 2], "{}", pebble.output());
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1), "{}", pebble.output());
    let issued = r#"proxy_acme_orders_total{result="issued",vhost="a.example"} 1"#;
    assert!(scene.counted().contains(issued), "{}", scene.counted());
}

#[tokio::test]
async fn order_for_removed_domain_ends() {
    if !pebble::is_there() {
        return;
    }
    let scene = Scene::new().await;
    let pebble = scene.pebble(Options { validation_secs: 15, ..Options::default() }).await;
    scene.want(&[&["a.example"]], TlsAlpn01);
    let _service = scene.service();
    eventually!(within LONG, scene.challenges.has_tls());
    assert_eq!(scene.status("a.example").map(|status| status.state), Some(AcmeState::Ordering));
    scene.want(&[], TlsAlpn01);
    eventually!(!scene.challenges.has_tls() && scene.statuses.load().is_empty());
    assert_eq!((pebble.orders(), pebble.issued()), (1, 0));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Runs the real binary with its real intervals.
#[tokio::test]
async fn gateway_obtains_configured_certificate_by_http_01() {
    gets_its_certificate("http-01").await;
}

#[tokio::test]
async fn gateway_obtains_configured_certificate_by_tls_alpn_01() {
    gets_its_certificate("tls-alpn-01").await;
}

async fn gets_its_certificate(challenge: &str) {
    if !pebble::is_there() {
        return;
    }
    let (place, origin, own) =
        (Place::new().await, Origin::start().await, Authority::new().issue("own.test"));
    let before = tls::config(origin.address(), "", &[tls::shows("own.test", &own)]);
    let gateway = Gateway::start_with_config(&before).await;
    let https = gateway.https().await;
    place.know("shop.example");
    let pebble = place.start(Options::default(), gateway.address.port(), https.port()).await;
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("acme");
    let tables = format!(
        "[lets_encrypt]\ndirectory_url = \"{}\"\nca_file = \"{}\"\ncache_dir = \"{}\"\nchallenge = \"{challenge}\"\n\
         [[virtual_hosts]]\ndomain = \"shop.example\"\nenabled_backends_tag = \"all\"\nacme = true\n\
         http_to_https = true\n",
        place.directory_url(),
        place.ca_file().display(),
        cache.display()
    );
    gateway.edit(&format!("{before}{tables}"));
    let shown = async || -> Option<X509> {
        let stream = handshake(https, Some("shop.example"), |_| Ok(())).await.ok()?;
        stream.ssl().peer_certificate()
    };
    // The gateway must present the certificate as soon as it was issued.
    eventually!(within LONG, shown().await.is_some(), "{}", gateway.process.output());
    let mut servers = std::fs::read_dir(&cache).unwrap();
    let server = servers.next().unwrap().unwrap().path();
    assert!(servers.next().is_none());
    let pem = server.join("shop.example.pem");
    assert!(pebble.vouches_for(&std::fs::read(&pem).unwrap(), "shop.example").await);
    assert_eq!(X509::from_pem(&after_key(&pem)).unwrap(), shown().await.unwrap());
    assert_eq!([&cache, &server].map(|path| mode(path)), [0o700; 2]);
    assert_eq!([&pem, &server.join("account.json")].map(|path| mode(path)), [0o600; 2]);
    let asked = || origin.received().iter().filter(|of| of.uri.path().starts_with("/.well-known/")).count();
    assert_eq!(asked(), 0, "no backend has to do with it");
    let listed = gateway.read("/certificates").await;
    assert_eq!(
        (&listed["acme"][0]["state"], &listed["shown"][1]["virtual_host"]),
        (&"valid".into(), &"shop.example".into())
    );

    // A new process finds the certificate on disk, so it must not order another one.
    let gateway = gateway.killed_and_started_again().await;
    let https = gateway.https().await;
    assert!(handshake(https, Some("shop.example"), |_| Ok(())).await.is_ok());
    let issued = r#"proxy_acme_orders_total{result="issued",vhost="shop.example"}"#;
    eventually!(gateway.monitor("/metrics").await.text().contains(issued));
    assert_eq!(gateway.metric(issued).await, 0.0);
    assert_eq!(pebble.orders(), 1);
    // An unknown challenge may belong to an ACME client of the backend. It is redirected to HTTPS like every request.
    assert_eq!(
        gateway.get_from("shop.example", "/.well-known/acme-challenge/none-of-ours").await.status,
        308
    );
}

/// Returns the certificates that follow the key in a PEM file.
fn after_key(pem: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(pem).unwrap();
    text.as_bytes()[text.find("-----BEGIN CERTIFICATE").unwrap()..].to_vec()
}
