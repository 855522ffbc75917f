//! Checks the percentiles, and that a stall of the server is seen in them.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ex0702::{Recorder, measure};
use parking_lot::Mutex;
use testkit::{Origin, expect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const INTERVAL: Duration = Duration::from_millis(10);
const COUNT: u32 = 100;
const STALL: Duration = Duration::from_millis(400);

fn percentile(samples: &[u64], percent: f64) -> Option<u64> {
    let mut recorder = Recorder::default();
    for sample in samples {
        recorder.record(Duration::from_millis(*sample), true);
    }
    recorder.percentile(percent).map(|latency| latency.as_millis().try_into().unwrap())
}

/// Starts a server that answers every request, and stalls once, at request `number`. Returns its address, and the
/// number of requests so far.
async fn stalls_at(number: usize) -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(0)));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    let now = {
                        let mut count = counter.lock();
                        *count += 1;
                        *count
                    };
                    if now == number {
                        tokio::time::sleep(STALL).await;
                    }
                    let answer = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                    if answer.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, count)
}

#[test]
fn percentile_is_the_sample_at_the_nearest_rank() {
    let hundred: Vec<u64> = (1..=100).rev().collect();
    for (percent, expected) in [(50.0, 50), (99.0, 99), (99.5, 100), (100.0, 100), (1.0, 1), (0.0, 1)] {
        expect!(percentile(&hundred, percent), Some(expected), "p{percent} of 100, 99, … 1 ms");
    }
    for (samples, percent, expected) in [
        (&[][..], 50.0, None),
        (&[7], 99.0, Some(7)),
        (&[30, 10], 50.0, Some(10)),
        (&[30, 10], 51.0, Some(30)),
        (&[1, 1, 1, 1000], 50.0, Some(1)),
        (&[1, 1, 1, 1000], 99.0, Some(1000)),
    ] {
        expect!(percentile(samples, percent), expected, "p{percent} of {samples:?} ms");
    }
}

#[tokio::test]
async fn a_stall_is_seen_in_the_99th_percentile() {
    let (address, count) = stalls_at(60).await;
    let recorder = measure(&format!("http://{address}/"), COUNT, INTERVAL).await;
    expect!(recorder.counts(), (COUNT as usize, 0), "how many requests were recorded, and how many failed");
    expect!(*count.lock(), COUNT as usize, "how many requests the server got");
    let is_seen = recorder.percentile(99.0) > Some(STALL * 3 / 4);
    expect!(
        is_seen,
        true,
        "whether p99 shows that the server stalled for {STALL:?}, and {COUNT} requests were due"
    );
    let is_usual = recorder.percentile(50.0) < Some(STALL * 3 / 4);
    expect!(is_usual, true, "whether p50 is far below the stall");
}

#[tokio::test]
async fn requests_are_sent_at_their_time() {
    let (address, _count) = stalls_at(usize::MAX).await;
    let started = std::time::Instant::now();
    let recorder = measure(&format!("http://{address}/"), 40, Duration::from_millis(20)).await;
    let is_paced = started.elapsed() >= Duration::from_millis(39 * 20);
    expect!(is_paced, true, "whether 40 requests, one in 20 ms, take 780 ms at least");
    let is_fast = recorder.percentile(50.0) < Some(Duration::from_millis(390));
    expect!(is_fast, true, "whether p50 of a fast server is far below the time of the whole measurement");
}

#[tokio::test]
async fn failed_requests_are_recorded() {
    let dead = Origin::dead();
    let recorder = measure(&format!("http://{}/", dead.address()), 5, INTERVAL).await;
    expect!(recorder.counts(), (5, 5), "requests and failed ones, when the server refuses connections");
    let origin = Origin::start().await;
    let recorder = measure(&format!("http://{}/status/500", origin.address()), 5, INTERVAL).await;
    expect!(recorder.counts(), (5, 5), "requests and failed ones, when the server answers 500");
}
