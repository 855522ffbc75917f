//! Listening on every address: of both kinds through one socket, or through one for each.

use std::net::SocketAddr;

use testkit::{Client, DEADLINE, Origin, Process, eventually, free_address};

use crate::support::{ConfigFile, GATEWAY, Gateway, Setup, config};

/// A configuration with these `keys` of `[proxy]` and of `[metrics]` for what is listened on.
fn listening(origin: &Origin, keys: &str, metrics: &str) -> ConfigFile {
    let text = config(&[origin.address()], Setup::default());
    let text = text.replace("listen_addr_http = \"127.0.0.1:0\"", keys);
    ConfigFile::new(&text.replace("\nlisten_addr = \"127.0.0.1:0\"", &format!("\n{metrics}")))
}

/// A gateway whose configuration `file` makes for a port; it is another port where one kind of it is taken.
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
async fn both_wildcards_of_a_port_serve_both_kinds_and_are_handed_over() {
    let origin = Origin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (socket, pid) = (directory.path().join("upgrade.sock"), directory.path().join("gateway.pid"));
    let file = |port: u16| {
        let addresses = format!("listen_addr_http = [\"0.0.0.0:{port}\", \"[::]:{port}\"]");
        // By the file the successor knows to whom it sends SIGQUIT.
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
