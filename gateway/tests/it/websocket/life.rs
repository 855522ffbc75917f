//! Lifetime of WebSockets: timeouts, the detection of their end, and their log lines.

use std::time::{Duration, Instant};

use futures::SinkExt;
use serde_json::Value;
use testkit::{DEADLINE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::raw::{self, REQUEST};
use super::{Echo, Event, connect, echoed, next, over};

#[tokio::test]
async fn silent_websocket_outlives_all_other_timeouts() {
    let echo = Echo::start().await;
    let bounds = "request_timeout_secs = 1\nkeepalive_timeout_secs = 1";
    let gateway = over(
        echo.address,
        bounds,
        "[upstream]\nread_timeout_secs = 1\nwrite_timeout_secs = 1\nidle_timeout_secs = 1\n",
    )
    .await;
    let mut socket = connect(&gateway).await;
    // The pause is longer than the sum of these timeouts. The test can only wait, because no event marks its end.
    sleep(Duration::from_millis(2_500)).await;
    echoed(&mut socket, Message::text("awake")).await;
}

#[tokio::test]
async fn an_idle_socket_is_closed_after_that_time_and_the_log_says_so() {
    let mut echo = Echo::start().await;
    let tables = "[logging]\nformat = \"json\"\n[upstream]\nstream_idle_timeout_secs = 1\n";
    let gateway = over(echo.address, "", tables).await;
    let mut socket = connect(&gateway).await;
    echoed(&mut socket, Message::text("four")).await;
    let since = Instant::now();
    assert_eq!(next(&mut socket).await, None);
    assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
    assert_eq!(echo.event().await, Event::End);
    let line: Value = serde_json::from_str(&gateway.process.line("\"path\":\"/ws\"").await).unwrap();
    assert_eq!((&line["status"], &line["error"]), (&101.into(), &"idle_timeout".into()), "{line}");
    // A masked frame of four bytes has ten bytes, an unmasked one six.
    assert_eq!((&line["bytes_received"], &line["bytes"]), (&10.into(), &6.into()), "{line}");
    assert_eq!(gateway.metric("proxy_request_duration_ms_count").await, 0.0);
    let recent = gateway.read("/requests").await;
    assert!(recent.to_string().contains("idle_timeout"), "{recent}");
}

/// A backend that sends a byte from time to time, and reads nothing.
async fn talks(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    stream.write_all(raw::SWITCHED.as_bytes()).await?;
    loop {
        sleep(Duration::from_millis(100)).await;
        stream.write_all(b".").await?;
    }
}

#[tokio::test]
async fn a_socket_on_which_one_side_talks_is_not_idle() {
    let gateway = over(
        raw::backend(talks).await,
        "",
        "[upstream]\nstream_idle_timeout_secs = 1\nread_timeout_secs = 1\n",
    )
    .await;
    let mut client = raw::switched(gateway.address).await;
    for _ in 0..25 {
        assert_eq!(timeout(DEADLINE, client.read_u8()).await.unwrap().unwrap(), b'.');
    }
}

#[tokio::test]
async fn websocket_ends_when_either_end_dies() {
    let mut echo = Echo::start().await;
    let gateway = over(echo.address, "", "").await;
    let mut socket = connect(&gateway).await;
    echoed(&mut socket, Message::text("x")).await;
    drop(socket);
    assert_eq!(echo.event().await, Event::End);
    eventually!(gateway.metric("proxy_websockets_active").await == 0.0);

    for dies in [raw::backend(closes).await, raw::backend(resets).await] {
        let gateway = over(dies, "", "").await;
        let mut client = raw::switched(gateway.address).await;
        client.write_all(b"x").await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(DEADLINE, client.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
        drop(client);
        eventually!(gateway.metric("proxy_websockets_active").await == 0.0);
    }
}

async fn closes(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    stream.write_all(raw::SWITCHED.as_bytes()).await?;
    stream.read_u8().await.map(|_| ())
}

async fn resets(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    stream.write_all(raw::SWITCHED.as_bytes()).await?;
    stream.peek(&mut [0]).await?;
    // The backend closes the connection with unread data.
    Ok(())
}

#[tokio::test]
async fn a_socket_is_a_request_in_flight_as_long_as_it_lasts() {
    let echo = Echo::start().await;
    let gateway = over(echo.address, "", "[upstream]\nmax_inflight_per_backend = 1\n").await;
    let mut socket = connect(&gateway).await;
    echoed(&mut socket, Message::text("x")).await;
    let request = REQUEST.replace("Connection: Upgrade", "Connection: Upgrade, close");
    let busy = testkit::exchange(gateway.address, request.as_bytes()).await;
    assert!(busy.starts_with("HTTP/1.1 503 ") && busy.contains("connection_limit_reached"), "{busy}");
    socket.close(None).await.unwrap();
    while next(&mut socket).await.is_some() {}
    eventually!(gateway.metric("proxy_websockets_active").await == 0.0);
    connect(&gateway).await.send(Message::text("y")).await.unwrap();
}
