//! Checks that a process that is told to end first answers the requests in flight.

use std::time::Duration;

use ex0412::{GRACE_SECONDS, conf};
use testkit::{Client, Origin, Process, Signal, eventually, expect};

/// Time limit for the process to end. It is longer than the grace period, and enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn sigterm_lets_a_request_in_flight_finish() {
    expect!(conf().grace_period_seconds, Some(GRACE_SECONDS), "the grace period in conf()");
    let origin = Origin::start().await;
    let upstream = origin.address().to_string();
    let (mut proxy, address) = Process::spawn_listening(env!("CARGO_BIN_EXE_ex0412"), &[&upstream]).await;
    let before = Client::new().get(format!("http://{address}/")).await;
    expect!(before.header("connection"), "keep-alive", "Connection, before the process is told to end");
    let url = format!("http://{address}/delay/1500");
    let in_flight = tokio::spawn(async move { Client::new().get(url).await });
    eventually!(origin.count("/delay/1500") == 1);
    proxy.signal(Signal::SIGTERM);

    let answer = in_flight.await.unwrap();
    expect!(answer.status, 200, "the request that was in flight when SIGTERM came");
    expect!(answer.text(), contains "after 1500 ms", "its body");
    expect!(answer.header("connection"), "close", "Connection in the response during the drain");
    expect!(proxy.ended(PATIENCE).await.code(), Some(0), "the exit code of the process");
}
