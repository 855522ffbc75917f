//! Idle connections to a backend whose network path has died. A firewall or NAT in between has forgotten them
//! and silently drops their bytes, while new connections work.
//!
//! The row of the matrix for this fault needs several connections and requests, so it has a separate table here.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::Origin;
use testkit::tls::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::client::{Ask, ask};
use super::harness::LIMIT;
use crate::grpc::client::client;
use crate::grpc::service::Echo;
use crate::support::{Gateway, Setup};

/// Number of idle connections when their path dies.
const KEPT: usize = 8;

/// A firewall between the gateway and a backend, which can forget connections.
struct Middlebox {
    address: SocketAddr,
    /// Number of the first connection that is not forgotten.
    forgotten: watch::Sender<usize>,
}

impl Middlebox {
    async fn before(backend: SocketAddr) -> Middlebox {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (forgotten, forgets) = watch::channel(0);
        let count = forgotten.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(backend).await else { continue };
                let born = *count.borrow();
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(from_near, to_far, forgets.clone(), born));
                tokio::spawn(pass(from_far, to_near, forgets.clone(), born));
            }
        });
        Middlebox { address, forgotten }
    }

    /// Forgets all present connections.
    fn forget(&self) {
        self.forgotten.send_modify(|forgotten| *forgotten += 1);
    }
}

/// Forwards bytes until the connection is forgotten. From then on it drops the bytes, and does not signal that
/// a side has closed.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, forgets: watch::Receiver<usize>, born: usize) {
    let mut part = [0; 4096];
    let is_forgotten = || *forgets.borrow() > born;
    while let Ok(read @ 1..) = from.read(&mut part).await {
        if !is_forgotten() && to.write_all(&part[..read]).await.is_err() {
            return;
        }
    }
    if is_forgotten() {
        std::future::pending::<()>().await;
    }
}

/// Starts a gateway over `backends` with a read timeout of one second and a request timeout of five.
async fn start(backends: &[SocketAddr], upstream: &str) -> Gateway {
    let tables = format!("[health_check]\nenabled = false\n[upstream]\nread_timeout_secs = 1\n{upstream}\n");
    let proxy = "request_timeout_secs = 5\nhttp2_cleartext = true\n";
    Gateway::start_over(backends, Setup { proxy, tables: &tables }).await
}

/// Sends [`KEPT`] requests at once, so that the gateway keeps that many idle connections.
async fn warm(gateway: &Gateway) {
    let request = || ask(gateway.address, Ask::get("/delay/300"), LIMIT);
    let got = futures::future::join_all((0..KEPT).map(|_| request())).await;
    assert!(got.iter().all(|got| is_answered(got)), "{got:?}");
}

/// Returns true if the result is a response of the backend.
fn is_answered(got: &str) -> bool {
    got == "200 with another body"
}

/// Sends ten requests one after the other. Returns their results and the total time.
async fn ten(gateway: &Gateway, request: Ask) -> (Vec<String>, Duration) {
    let began = Instant::now();
    let mut got = Vec::new();
    for _ in 0..10 {
        got.push(ask(gateway.address, request, LIMIT).await);
    }
    (got, began.elapsed())
}

#[tokio::test]
async fn dead_idle_connections_do_not_open_the_circuit() {
    let authority = Authority::new();
    let tls = Origin::start_tls(&authority.issue("web.test")).await;
    let (plain, spare) = (Origin::start().await, Origin::start().await);
    let over_tls = format!(
        "tls = true\nsni = \"web.test\"\nca_file = \"{}\"\nprotocol = \"http2\"",
        authority.certificate_file().display()
    );
    for (origin, upstream) in [(&plain, ""), (&plain, "protocol = \"http2\""), (&tls, over_tls.as_str())] {
        for has_spare in [false, true] {
            if has_spare && upstream.starts_with("tls") {
                continue;
            }
            let middlebox = Middlebox::before(origin.address()).await;
            let backends = [middlebox.address, spare.address()];
            let gateway = start(&backends[..1 + usize::from(has_spare)], upstream).await;
            let what = format!("{upstream:?}, with a spare backend: {has_spare}");
            warm(&gateway).await;
            middlebox.forget();
            let (got, took) = ten(&gateway, Ask::get("/anything")).await;
            assert!(got.iter().all(|got| is_answered(got)), "GETs are tried again: {what}: {got:?}");
            assert!(took < Duration::from_secs(10), "{took:?}: {what}");

            warm(&gateway).await;
            middlebox.forget();
            let (got, _) = ten(&gateway, Ask::post("/anything", 4)).await;
            let late = got.iter().filter(|got| got.starts_with("504 http_response_timeout")).count();
            let well = got.iter().filter(|got| is_answered(got)).count();
            assert_eq!(late + well, 10, "{what}: {got:?}");
            assert!(late <= 2, "a POST is not sent again, and two of them are enough: {what}: {got:?}");
            let log = gateway.process.output();
            assert!(!log.contains("circuit opened"), "{what}:\n{log}");
        }
    }
}

#[tokio::test]
async fn a_call_without_a_deadline_ends_when_its_connection_is_dead() {
    let echo = Echo::start().await;
    let middlebox = Middlebox::before(echo.address).await;
    let gateway = start(&[middlebox.address], "protocol = \"http2\"\nh2_ping_interval_secs = 1").await;
    let mut calls = client(gateway.address).await;
    assert_eq!(calls.say("hello").await.unwrap(), "you said hello");
    middlebox.forget();
    let began = Instant::now();
    // The call on the dead connection must end, with or without an error. The next calls must get responses.
    let first = calls.say("hello").await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}: {first:?}", began.elapsed());
    assert_eq!(calls.say("again").await.unwrap(), "you said again");
}

#[tokio::test]
async fn circuit_trial_uses_a_new_connection() {
    let origin = Origin::start().await;
    let middlebox = Middlebox::before(origin.address()).await;
    let tables = "[health_check]\nenabled = false\n[retry]\nattempts = 1\n[upstream]\nread_timeout_secs = 1\n\
                  [circuit_breaker]\nconsecutive_failures = 1\nopen_secs = 1\n";
    let gateway = Gateway::start_over(&[middlebox.address], Setup { tables, ..Setup::default() }).await;
    warm(&gateway).await;
    // A status 500 opens the circuit. Meanwhile the path of the idle connections dies.
    assert!(ask(gateway.address, Ask::get("/status/500"), LIMIT).await.starts_with("500"));
    gateway.process.line("circuit opened").await;
    middlebox.forget();
    testkit::eventually!(ask(gateway.address, Ask::get("/anything"), LIMIT).await.starts_with("200"));
    let log = gateway.process.output();
    assert!(!log.contains("circuit opened again"), "{log}");
}
