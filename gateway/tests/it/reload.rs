use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::Request;
use testkit::{Client, Origin, Process, Signal, eventually};

use crate::support::{GATEWAY, Gateway, Setup, config};

const NO_CHECKS: &str = "[health_check]\nenabled = false\n";

fn over(origins: &[&Origin], tables: &str) -> String {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address()).collect();
    config(&addresses, Setup { tables, ..Setup::default() })
}

async fn answered_by(gateway: &Gateway) -> String {
    gateway.get("/").await.header("x-origin").to_owned()
}

#[tokio::test]
async fn an_edit_of_the_file_moves_the_traffic() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&over(&[&a], "")).await;
    assert_eq!(answered_by(&gateway).await, a.label());
    gateway.edit(&over(&[&b], ""));
    eventually!(answered_by(&gateway).await == b.label());
    gateway.process.line("a new configuration was applied by=\"file\" revision=2").await;
}

#[tokio::test]
async fn sighup_reads_the_file_again() {
    let a = Origin::start().await;
    let gateway = Gateway::start_with_config(&over(&[&a], "")).await;
    gateway.process.signal(Signal::SIGHUP);
    gateway.process.line("a new configuration was applied by=\"SIGHUP\" revision=2").await;
    assert_eq!(answered_by(&gateway).await, a.label());
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let mut gateway = Gateway::start_with_config(&over(&[&a], "")).await;
    assert_eq!(gateway.metric("proxy_config_last_reload_successful").await, 1.0);
    let broken = over(&[&b], "").replace("[proxy]", "[prxy]\n[proxy]");
    gateway.edit(&broken);
    let line = gateway.process.line("was not applied, and the old one stays in use").await;
    assert!(line.contains("gateway.toml:1:2: unknown key `prxy` (did you mean `proxy`?)"), "{line}");
    eventually!(gateway.metric("proxy_config_last_reload_successful").await == 0.0);
    assert_eq!(answered_by(&gateway).await, a.label());

    // A missing file, and a file with an unresolvable backend, must have the same effect.
    std::fs::remove_file(gateway.file()).unwrap();
    gateway.process.line("cannot read the configuration").await;
    gateway.edit(&over(&[&a], "").replace(&a.address().to_string(), "nowhere.invalid:1"));
    gateway.process.line("cannot resolve 'nowhere.invalid:1'").await;
    assert_eq!(answered_by(&gateway).await, a.label());

    gateway.edit(&over(&[&b], ""));
    eventually!(answered_by(&gateway).await == b.label());
    assert_eq!(gateway.metric("proxy_config_last_reload_successful").await, 1.0);
    assert!(gateway.process.is_running());
}

/// Kubernetes mounts a ConfigMap in this way: the file is a symlink through `..data`, which is replaced.
#[tokio::test]
async fn a_swapped_symlink_is_noticed() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, origin) in [("..1", &a), ("..2", &b)] {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("gateway.toml"), over(&[origin], "")).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/gateway.toml", at("gateway.toml")).unwrap();
    let process = Process::spawn(GATEWAY, &["-c", &at("gateway.toml").display().to_string()], &[]);
    let line = process.line("listening on http://").await;
    let url = format!("{}/", &line[line.find("http://").unwrap()..]);
    let client = Client::new();
    assert_eq!(client.get(&url).await.header("x-origin"), a.label());
    symlink("..2", at("..new")).unwrap();
    std::fs::rename(at("..new"), at("..data")).unwrap();
    eventually!(client.get(&url).await.header("x-origin") == b.label());
}

#[tokio::test]
async fn a_request_in_flight_ends_where_it_began() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&over(&[&a], "")).await;
    let url = gateway.url("/stream/10?interval_ms=100");
    let in_flight = tokio::spawn(async move { Client::new().get(url).await });
    eventually!(a.count("/stream/10") == 1);
    gateway.edit(&over(&[&b], ""));
    eventually!(answered_by(&gateway).await == b.label());
    let answer = in_flight.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("x-origin")), (200, a.label().as_str()));
    assert_eq!(answer.text().lines().count(), 10);
}

#[tokio::test]
async fn health_quota_and_connections_survive_a_reload() {
    let (a, b) = (Origin::start().await, Origin::dead());
    let checks = "[health_check]\nkind = \"tcp\"\ninterval_secs = 1\nunhealthy_threshold = 1\n\
                  [rate_limit]\nrequests = 4\n";
    let gateway = Gateway::start_with_config(&over(&[&a, &b], checks)).await;
    let status = "health_check_status{backend=\"origin-1\"}";
    eventually!(gateway.metric(status).await == 0.0);
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    gateway.edit(&over(&[&a, &b], &format!("{checks}[retry]\nattempts = 1\n")));
    gateway.process.line("was applied").await;
    assert_eq!(gateway.metric(status).await, 0.0, "the dead one is not believed to be healthy again");
    assert_eq!(gateway.get("/").await.status, 429, "and clients do not get another quota");
    assert_eq!(gateway.metric("proxy_backend_connections_total{backend=\"origin-0\"}").await, 1.0);
}

#[tokio::test]
async fn removed_backend_is_no_longer_probed_or_counted() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let checks = "[health_check]\npath = \"/health\"\ninterval_secs = 1\n";
    let two_hosts = |origins: &[&Origin]| {
        let host = "[[virtual_hosts]]\ndomain = \"other\"\nenabled_backends_tag = \"all\"\n";
        over(origins, &format!("{checks}{host}"))
    };
    let gateway = Gateway::start_with_config(&two_hosts(&[&a, &b])).await;
    eventually!(b.count("/health") > 0);
    let request = Request::get(gateway.url("/")).header("Host", "other").body(Bytes::new()).unwrap();
    Client::new().send(request).await;
    assert!(gateway.monitor("/metrics").await.text().contains("vhost=\"other\""));
    gateway.edit(&over(&[&a], checks));
    gateway.process.line("was applied").await;
    let metrics = gateway.monitor("/metrics").await.text();
    assert!(!metrics.contains("vhost=\"other\"") && !metrics.contains("backend=\"origin-1\""), "{metrics}");
    b.forget();
    let before = a.count("/health");
    eventually!(a.count("/health") > before + 1);
    assert_eq!(b.count("/health"), 0);
}

#[tokio::test]
async fn health_checks_can_be_changed_and_switched_off() {
    let (a, mut b) = (Origin::start().await, Origin::start().await);
    let checks = "[health_check]\nkind = \"tcp\"\ninterval_secs = 1\nunhealthy_threshold = 1\n";
    let gateway = Gateway::start_with_config(&over(&[&a, &b], NO_CHECKS)).await;
    b.die().await;
    gateway.edit(&over(&[&a, &b], checks));
    let status = "health_check_status{backend=\"origin-1\"}";
    eventually!(gateway.metric(status).await == 0.0);
    gateway.edit(&over(&[&a, &b], NO_CHECKS));
    eventually!(gateway.metric(status).await == 1.0, "without probes every backend counts as healthy");
}

#[tokio::test]
async fn keys_that_need_a_restart_are_logged_and_the_rest_applied() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&over(&[&a], "")).await;
    let moved = over(&[&b], "").replace("[metrics]", "threads = 3\n[metrics]");
    gateway.edit(&moved);
    gateway.process.line("these keys take effect only after a restart: proxy.threads").await;
    assert_eq!(answered_by(&gateway).await, b.label());
}

#[tokio::test]
async fn changes_under_load_lose_no_request() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start_with_config(&over(&[&a], "")).await;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (url, done) = (gateway.url("/"), done.clone());
            tokio::spawn(async move {
                let client = Client::new();
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.get(&url).await.status, 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 2..12 {
        gateway.edit(&over(&[if round % 2 == 0 { &b } else { &a }], ""));
        gateway.process.line(&format!("revision={round}")).await;
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}
