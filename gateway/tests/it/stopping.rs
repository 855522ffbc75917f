use std::time::{Duration, Instant};

use testkit::{DEADLINE, Origin, Signal, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gateway, Setup};

async fn begin(gateway: &Gateway, origin: &Origin, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    eventually!(origin.received().len() == 1);
    client
}

#[tokio::test]
async fn signal_drains_requests_in_flight_and_ends_the_process() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let origin = Origin::start().await;
        let mut gateway = Gateway::start(&[&origin], Setup::default()).await;
        let idle = TcpStream::connect(gateway.address).await.unwrap();
        let mut client = begin(&gateway, &origin, "/stream/20?interval_ms=100").await;
        gateway.process.signal(signal);
        eventually!(gateway.monitor("/readyz").await.status == 503);
        eventually!(TcpStream::connect(gateway.address).await.is_err(), "nothing more is accepted");

        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("chunk 20"), "{answer}");
        let answered = Instant::now();
        assert!(gateway.process.ended(DEADLINE).await.success());
        // This is a check of correctness, not of speed: Pingora alone would sleep for its whole grace period.
        assert!(answered.elapsed() < DEADLINE);
        drop(idle);
    }
}

#[tokio::test]
async fn shutdown_timeout_bounds_the_wait() {
    let origin = Origin::start().await;
    let mut gateway =
        Gateway::start(&[&origin], Setup { proxy: "shutdown_timeout_secs = 1", tables: "" }).await;
    let _client = begin(&gateway, &origin, "/delay/60000").await;
    gateway.process.signal(Signal::SIGTERM);
    assert!(gateway.process.ended(Duration::from_secs(10)).await.success());
    assert!(gateway.process.output().contains("stopped with connections open"));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::start(&[&origin], Setup::default()).await;
    let _client = begin(&gateway, &origin, "/delay/60000").await;
    gateway.process.signal(Signal::SIGINT);
    eventually!(gateway.monitor("/readyz").await.status == 503);
    gateway.process.signal(Signal::SIGINT);
    gateway.process.ended(DEADLINE).await;
    assert!(gateway.process.output().contains("stopping at once"));
}
