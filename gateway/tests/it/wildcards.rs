//! Listeners on wildcard addresses: IPv4 and IPv6 through one socket, or through one socket each.

use std::net::SocketAddr;

use testkit::{Client, DEADLINE, Origin, Process, eventually, free_address};

use crate::support::{ConfigFile, GATEWAY, Gateway, Setup, config};

/// Returns a configuration with these `keys` of `[proxy]`, and these of `[metrics]`, for the listen addresses.
fn listening(origin: &Origin, keys: &str, metrics: &str) -> ConfigFile {
    let text = config(&[origin.address()], Setup::default());
    let text = text.replace("listen_addr_http = \"127.0.0.1:0\"", keys);
    ConfigFile::new(&text.replace("\nlisten_addr = \"127.0.0.1:0\"", &format!("\n{metrics}")))
}

/// Starts a gateway with the configuration that `file` returns for a port. Tries another port if this one is
/// already in use for IPv4 or IPv6.
async fn start(file: impl Fn(u16) -> ConfigFile) -> (Gateway, u16) {
    for _ in 0..5 {
        let port = free_address().port();
        let file = file(port);
        let process = Process::spawn(GATEWAY, &["--config", &file.path().display().to_string()], &[]);
        eventually!(["metrics on http://", "cannot listen"].iter().any(|it| process.output().contains(it)));
        if !process.output().contains("in use") {
            return (Gateway::from_process(process, file).await, port);
        }
    }
    panic!("no port is free for both kinds");
}

async fn get(host: &str, port: u16, path: &str) -> String {
    let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
    let response = Client::new().get(format!("http://{address}{path}")).await;
    format!("{} {}", response.status.as_u16(), response.text())
}

#[tokio::test]
async fn ipv4_and_ipv6_wildcards_serve_both_and_are_handed_over() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (socket, pid) = (directory.path().join("upgrade.sock"), directory.path().join("gateway.pid"));
    let file = |port: u16| {
        let addresses = format!("listen_addr_http = [\"0.0.0.0:{port}\", \"[::]:{port}\"]");
        // The successor reads the pid file to send SIGQUIT to the old process.
        let keys = format!("{addresses}\nupgrade_sock = {socket:?}\npid_file = {pid:?}");
        listening(&origin, &keys, "listen_addr = \"127.0.0.1:0\"")
    };
    let (mut old, port) = start(file).await;
    for host in ["127.0.0.1", "[::1]"] {
        assert!(get(host, port, "/").await.starts_with("200"), "{host}");
    }
    let file = file(port);
    let arguments = ["run", "--upgrade", "--config", &file.path().display().to_string()];
    let successor = Process::spawn(GATEWAY, &arguments, &[]);
    let _new = Gateway::from_process(successor, file).await;
    assert!(old.process.ended(DEADLINE).await.success(), "{}", old.process.output());
    for host in ["127.0.0.1", "[::1]"] {
        assert!(get(host, port, "/").await.starts_with("200"), "{host}");
    }
}

#[tokio::test]
async fn one_wildcard_of_a_port_may_be_the_metrics() {
    let origin = Origin::start().await;
    let file = |port: u16| {
        let keys = format!("listen_addr_http = \"0.0.0.0:{port}\"");
        listening(&origin, &keys, &format!("listen_addr = \"[::]:{port}\""))
    };
    let (_gateway, port) = start(file).await;
    assert_ne!(get("127.0.0.1", port, "/livez").await, "200 OK", "that is the origin");
    assert_eq!(get("[::1]", port, "/livez").await, "200 OK");
}

#[tokio::test]
async fn the_ipv6_wildcard_alone_serves_both_kinds() {
    let origin = Origin::start().await;
    let file = |port: u16| {
        let keys = format!("listen_addr_http = \"[::]:{port}\"");
        listening(&origin, &keys, "listen_addr = \"127.0.0.1:0\"")
    };
    let (_gateway, port) = start(file).await;
    for host in ["127.0.0.1", "[::1]"] {
        assert!(get(host, port, "/").await.starts_with("200"), "{host}");
    }
}
