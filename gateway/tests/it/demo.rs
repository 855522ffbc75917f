use std::collections::HashSet;
use std::thread;

use gateway::config::OneOrMany;
use gateway::demo::{self, DemoOrigins};
use gateway::server;
use testkit::{Client, eventually, free_address};
use tokio::net::TcpStream;

/// In this process, because the demo's own ports are fixed: a newcomer must know where to look.
#[tokio::test]
async fn six_requests_reach_three_origins() {
    let address = free_address();
    let mut config = demo::config().unwrap();
    config.proxy.listen_addr_http = OneOrMany(vec![address]);
    config.metrics.enabled = false;
    let origins = DemoOrigins::bind(&mut config).unwrap();
    let welcome = origins.welcome(address, None);
    assert_eq!(welcome.matches("curl ").count(), 3, "{welcome}");
    assert!(welcome.contains(&format!("gateway   http://{address}")), "{welcome}");
    for backend in &config.backends {
        let origin = backend.address.as_ref().unwrap().to_string();
        assert!(welcome.contains(&origin), "{origin} not in {welcome}");
    }

    thread::spawn(move || server::run(&config, Some(origins)).unwrap());
    eventually!(TcpStream::connect(address).await.is_ok());
    let mut seen = HashSet::new();
    for _ in 0..6 {
        let answer = Client::new().get(format!("http://{address}/")).await;
        assert_eq!(answer.status, 200);
        seen.insert(answer.header("x-origin").to_owned());
    }
    assert_eq!(seen, HashSet::from(["A", "B", "C"].map(str::to_owned)));
}
