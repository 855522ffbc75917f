//! Runs the sample's real binary in front of origins that die and come back.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use testkit::{Client, DEADLINE, Origin, Process, Signal, eventually};

const BALANCER: &str = env!("CARGO_BIN_EXE_load_balancer");

/// Time limit that is longer than two rounds of the sample's health check, which runs every five seconds.
const TWO_CHECKS: Duration = Duration::from_secs(12);

async fn balance(origins: &[&Origin]) -> (Process, SocketAddr) {
    let addresses: Vec<String> = origins.iter().map(|origin| origin.address().to_string()).collect();
    let arguments: Vec<&str> = addresses.iter().map(String::as_str).collect();
    Process::spawn_listening(BALANCER, &arguments).await
}

#[tokio::test]
async fn requests_take_turns() {
    let (a, b, c) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let (_balancer, address) = balance(&[&a, &b, &c]).await;
    let client = Client::new();
    for _ in 0..9 {
        assert_eq!(client.get(format!("http://{address}/")).await.status, 200);
    }
    assert_eq!([a.count("/"), b.count("/"), c.count("/")], [3, 3, 3]);
}

#[tokio::test]
async fn a_dead_upstream_loses_no_request_and_soon_gets_none() {
    let (mut a, b) = (Origin::start().await, Origin::start().await);
    let (mut balancer, address) = balance(&[&a, &b]).await;
    let client = Client::new();
    let url = format!("http://{address}/");
    a.die().await;
    // A POST may go to the other origin too, because nothing was sent to the dead one.
    for _ in 0..4 {
        assert_eq!(client.get(&url).await.status, 200);
        assert_eq!(client.post(&url, "once").await.status, 200);
    }
    assert_eq!(b.count("/"), 8);

    // Pingora logs when the check has noticed. After that, no request tries the dead origin.
    eventually!(within TWO_CHECKS, balancer.output().contains("becomes unhealthy"));
    for _ in 0..10 {
        assert_eq!(client.get(&url).await.status, 200);
    }
    // The origin gets its share again when it is back.
    a.revive();
    let label = a.label();
    eventually!(within TWO_CHECKS, client.get(&url).await.header("x-origin") == label);

    // The log is complete only after the process has ended.
    balancer.signal(Signal::SIGKILL);
    balancer.ended(DEADLINE).await;
    let log = balancer.output();
    let (_, after) = log.split_once("becomes unhealthy").unwrap();
    assert!(!after.contains("trying another"), "{log}");
}

#[tokio::test]
async fn with_no_healthy_upstream_clients_get_503() {
    let (mut a, mut b) = (Origin::start().await, Origin::start().await);
    let (mut balancer, address) = balance(&[&a, &b]).await;
    a.die().await;
    b.die().await;
    let client = Client::new();
    // The status is 503 before the check has noticed, when both upstreams are tried without success, and after.
    let url = format!("http://{address}/");
    assert_eq!(client.get(&url).await.status, 503);
    eventually!(within TWO_CHECKS, balancer.output().matches("becomes unhealthy").count() == 2);
    assert_eq!(client.get(&url).await.status, 503);
    assert!(balancer.is_running() && !balancer.output().contains("panicked"));
}

#[tokio::test]
async fn requests_are_spread_over_many_connections_too() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let (_balancer, address) = balance(&[&a, &b]).await;
    let mut seen = HashSet::new();
    for _ in 0..4 {
        let answer = Client::new().get(format!("http://{address}/")).await;
        seen.insert(answer.header("x-origin").to_owned());
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_bad_argument_is_one_line_and_exit_code_2() {
    let (code, said) = Process::run(BALANCER, &["127.0.0.1:3001", "nonsense"], &[]).await;
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("'nonsense'") && said.contains("expected IP:PORT"), "{said}");
}

#[tokio::test]
async fn a_taken_port_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let (code, said) = Process::run(BALANCER, &["127.0.0.1:1"], &[("LISTEN_ADDR", &listen)]).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(&format!("cannot listen on {listen}")), "{said}");
}
