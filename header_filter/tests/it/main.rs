//! Runs the sample's real binary, and checks what the upstream sees and what the client gets back.

use std::net::TcpListener;

use testkit::{Client, Origin, Process, exchange};

const FILTER: &str = env!("CARGO_BIN_EXE_header_filter");

#[tokio::test]
async fn upstream_gets_added_fields_and_true_client_address() {
    let origin = Origin::start().await;
    let (_filter, address) = Process::spawn_listening(FILTER, &[&origin.address().to_string()]).await;
    let request = format!(
        "GET /anything HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n\
         X-Proxy-Added: forged\r\nX-Forwarded-By: forged\r\n\r\n"
    );
    let answer = exchange(address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let received = &origin.received()[0];
    let all = |name: &str| -> Vec<_> { received.headers.get_all(name).iter().cloned().collect() };
    assert_eq!(all("x-proxy-added"), ["pingora-demo"]);
    assert_eq!(all("x-forwarded-by"), ["rust-pingora"]);
    assert_eq!(all("x-forwarded-for"), ["127.0.0.1"]);
    // Without TLS, the upstream gets the client's own Host unchanged.
    assert_eq!(received.header("host"), address.to_string());
}

#[tokio::test]
async fn the_client_gets_the_added_field_and_no_server_field() {
    let origin = Origin::start().await;
    let direct = Client::new().get(format!("http://{}/", origin.address())).await;
    assert_eq!(direct.header("server"), "origin");

    let (_filter, address) = Process::spawn_listening(FILTER, &[&origin.address().to_string()]).await;
    let answer = Client::new().get(format!("http://{address}/")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-proxy"), "pingora-demo");
    assert!(!answer.headers.contains_key("server"), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_bad_argument_is_one_line_and_exit_code_2() {
    let (code, said) = Process::run(FILTER, &["nonsense"], &[]).await;
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("'nonsense'") && said.contains("expected IP:PORT"), "{said}");
}

#[tokio::test]
async fn a_taken_port_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let (code, said) = Process::run(FILTER, &["127.0.0.1:1"], &[("LISTEN_ADDR", &listen)]).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(&format!("cannot listen on {listen}")), "{said}");
}
