//! Faults that last: all backends fail and come back, and bodies arrive byte by byte.

use std::time::{Duration, Instant};

use testkit::{Fault, Faulty, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Ask, ask};
use super::harness::{BREAKER_OFF, LIMIT, PROXY, Tried, report, requests, try_one};
use super::{DOWN, REFUSED};
use crate::support::{Gateway, Setup};

/// Response of either of two backends.
pub(super) const EITHER: &str = "200 1+0 or 200 0+1";

/// Sends the three requests of a row one after the other, and returns the results.
pub(super) async fn scene(
    name: &str,
    gateway: &Gateway,
    backends: [&Faulty; 2],
    want: [&'static str; 3],
) -> Tried {
    let mut got = Vec::new();
    for request in requests(false) {
        got.push(try_one(gateway, &backends, request).await);
    }
    Tried { name: name.to_owned(), backends: "two", want, got: [0, 1, 2].map(|i| got[i].clone()) }
}

#[tokio::test]
async fn all_down_and_all_back() {
    let (mut a, mut b) = (Faulty::start(Fault::None).await, Faulty::start(Fault::None).await);
    let tables = format!("[health_check]\nenabled = false\n{BREAKER_OFF}");
    let setup = Setup { proxy: PROXY, tables: &tables };
    let gateway = Gateway::start_over(&[a.address(), b.address()], setup).await;
    let mut tried = Vec::new();
    for _ in 0..2 {
        tried.push(scene("all up, not probed", &gateway, [&a, &b], [EITHER; 3]).await);
        a.die().await;
        b.die().await;
        tried.push(scene("all down, not probed", &gateway, [&a, &b], [REFUSED; 3]).await);
        a.revive();
        b.revive();
    }
    tried.push(scene("all back, not probed", &gateway, [&a, &b], [EITHER; 3]).await);
    report(&tried);
}

#[tokio::test]
async fn all_down_and_all_back_with_probes() {
    let (mut a, mut b) = (Faulty::start(Fault::None).await, Faulty::start(Fault::None).await);
    let probes = "[health_check]\npath = \"/health\"\ninterval_secs = 1\nunhealthy_threshold = 1\n\
                  healthy_threshold = 1\n";
    let tables = format!("{probes}{BREAKER_OFF}");
    let setup = Setup { proxy: PROXY, tables: &tables };
    let gateway = Gateway::start_over(&[a.address(), b.address()], setup).await;
    let healthy = async || {
        let of = async |id| gateway.metric(&format!("health_check_status{{backend=\"{id}\"}}")).await;
        of("origin-0").await + of("origin-1").await
    };
    let mut tried = Vec::new();
    for _ in 0..2 {
        eventually!(healthy().await == 2.0);
        tried.push(scene("all up, probed", &gateway, [&a, &b], [EITHER; 3]).await);
        a.die().await;
        b.die().await;
        eventually!(healthy().await == 0.0);
        tried.push(scene("all down, probed", &gateway, [&a, &b], [DOWN; 3]).await);
        a.revive();
        b.revive();
    }
    eventually!(healthy().await == 2.0);
    tried.push(scene("all back, probed", &gateway, [&a, &b], [EITHER; 3]).await);
    report(&tried);
}

#[tokio::test]
async fn dripping_body_is_passed_on_byte_by_byte() {
    let faulty = Faulty::start(Fault::Stepped).await;
    let setup = Setup { proxy: PROXY, tables: "[health_check]\nenabled = false\n" };
    let gateway = Gateway::start_over(&[faulty.address()], setup).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LIMIT, client.read_u8()).await.expect("the head waits for the body").unwrap());
    }
    let mut delays = Vec::new();
    for expected in *b"hello" {
        let sent = Instant::now();
        faulty.step();
        // The backend does not send the next byte before this one has arrived.
        let byte = timeout(LIMIT, client.read_u8()).await.expect("a byte waits for the next one").unwrap();
        assert_eq!(byte, expected);
        delays.push(sent.elapsed());
    }
    // At least one byte must arrive fast, even on a busy machine.
    assert!(delays.iter().min() < Some(&Duration::from_millis(100)), "{delays:?}");
    // The client's connection closes after the backend's connection was returned to the pool.
    let end = timeout(LIMIT, client.read(&mut [0])).await.expect("the connection stays open");
    assert_eq!((end.unwrap(), faulty.connections()), (0, 1));
    faulty.behave(Fault::None);
    assert_eq!(ask(gateway.address, Ask::get("/"), LIMIT).await, "200");
    assert_eq!(faulty.connections(), 1, "the connection is kept after a body that dripped");
}
