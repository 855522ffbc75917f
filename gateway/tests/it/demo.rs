use std::collections::{BTreeMap, HashSet};
use std::thread;

use gateway::config::Overrides;
use gateway::process::start::StartOptions;
use gateway::{demo, server};
use testkit::{Client, Process, eventually, free_address};
use tokio::net::TcpStream;

use crate::support::GATEWAY;

/// Runs the demo in the process of the test, which it does not leave. The demo's ports are fixed, because a newcomer must
/// know them. So this one gets other ports for metrics and management: another test uses the fixed ones.
#[tokio::test]
async fn six_requests_reach_three_origins() {
    let address = free_address();
    let overrides = Overrides { listen: vec![address], ..Overrides::default() };
    let any = |name: &str| (name.to_owned(), "127.0.0.1:0".to_owned());
    let ports = BTreeMap::from(["PINGORA_MANAGEMENT_ADDR", "PINGORA_METRICS_ADDR"].map(any));
    let (source, parsed, origins) = demo::prepare(ports, overrides).unwrap();
    let welcome = origins.welcome(address, None, None);
    assert_eq!(welcome.matches("curl ").count(), 3, "{welcome}");
    assert!(welcome.contains(&format!("gateway   http://{address}")), "{welcome}");
    for backend in &parsed.config.backends {
        let origin = backend.address.as_ref().unwrap().to_string();
        assert!(welcome.contains(&origin), "{origin} not in {welcome}");
    }

    thread::spawn(move || server::run(source, parsed, Some(origins), StartOptions::default()).unwrap());
    eventually!(TcpStream::connect(address).await.is_ok());
    let mut seen = HashSet::new();
    for _ in 0..6 {
        let answer = Client::new().get(format!("http://{address}/")).await;
        assert_eq!(answer.status, 200);
        let said =
            ["x-forwarded-by", "x-proxy", "x-load-balancer"].map(|name| answer.header(name).to_owned());
        assert_eq!(said, ["rust-pingora", "gateway", "pingora"]);
        seen.insert(answer.header("x-origin").to_owned());
    }
    assert_eq!(seen, HashSet::from(["A", "B", "C"].map(str::to_owned)));
}

#[tokio::test]
async fn listen_option_moves_the_demo() {
    let address = free_address();
    let mut demo = Process::spawn(GATEWAY, &["--listen", &address.to_string()], &[]);
    demo.line(&format!("gateway   http://{address}")).await;
    eventually!(TcpStream::connect(address).await.is_ok());
    let answer = Client::new().get(format!("http://{address}/")).await;
    assert!(answer.text().starts_with("hello from origin"), "{answer:?}");
    assert!(demo.is_running());
}
