//! Runs the sample's real binary in front of real origins.

use std::net::TcpListener;
use std::time::Duration;

use testkit::{Client, Origin, Process, Signal};

const PROXY: &str = env!("CARGO_BIN_EXE_simple_proxy");

#[tokio::test]
async fn forwards_method_path_query_and_body() {
    let origin = Origin::start().await;
    let (_proxy, address) = Process::spawn_listening(PROXY, &[&origin.address().to_string()]).await;
    let answer = Client::new().post(format!("http://{address}/anything/a?b=c"), "hello").await;
    assert_eq!(answer.status, 200);
    let echo = answer.json();
    assert_eq!(echo["method"], "POST");
    assert_eq!(echo["path"], "/anything/a");
    assert_eq!(echo["query"], "b=c");
    assert_eq!(echo["body"], "hello");
    assert_eq!(answer.header("x-origin"), origin.label());
}

#[tokio::test]
async fn a_dead_upstream_is_502() {
    let dead = Origin::dead();
    let (_proxy, address) = Process::spawn_listening(PROXY, &[&dead.address().to_string()]).await;
    assert_eq!(Client::new().get(format!("http://{address}/")).await.status, 502);
}

#[tokio::test]
async fn a_bad_argument_is_one_line_and_exit_code_2() {
    for arguments in
        [&["nonsense"][..], &["127.0.0.1"], &["127.0.0.1:99999"], &["127.0.0.1:1", "127.0.0.1:2"]]
    {
        let (code, said) = Process::run(PROXY, arguments, &[]).await;
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(&arguments.join(" ")) && said.contains("expected IP:PORT"), "{said}");
    }
}

#[tokio::test]
async fn a_taken_port_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let (code, said) = Process::run(PROXY, &["127.0.0.1:1"], &[("LISTEN_ADDR", &listen)]).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(&format!("cannot listen on {listen}")), "{said}");
}

#[tokio::test]
async fn sigterm_ends_the_process_without_a_five_minute_wait() {
    let (mut proxy, address) = Process::spawn_listening(PROXY, &["127.0.0.1:1"]).await;
    // Pingora listens before it installs its signal handlers, and a response does not prove that they are
    // installed. So SIGTERM may also kill the process directly, and the test accepts that.
    Client::new().get(format!("http://{address}/")).await;
    proxy.signal(Signal::SIGTERM);
    proxy.ended(Duration::from_secs(20)).await;
}
