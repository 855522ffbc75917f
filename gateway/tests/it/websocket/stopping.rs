//! WebSockets that are open when the process gets the signal to stop.

use std::time::{Duration, Instant};

use testkit::{DEADLINE, Signal, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::raw::{self, SWITCHED};
use super::{Echo, Event, close, connect, echoed, next, over};

#[tokio::test]
async fn open_websockets_go_on_until_both_ends_close() {
    let mut echo = Echo::start().await;
    let mut gateway = over(echo.address, "shutdown_timeout_secs = 60", "").await;
    let mut socket = connect(&gateway).await;
    echoed(&mut socket, Message::text("before")).await;
    gateway.process.signal(Signal::SIGTERM);
    eventually!(TcpStream::connect(gateway.address).await.is_err(), "nothing more is accepted");
    for n in 0..20 {
        echoed(&mut socket, Message::text(format!("after {n}"))).await;
    }
    socket.close(None).await.unwrap();
    while next(&mut socket).await.is_some() {}
    assert_eq!(echo.event().await, Event::Close(None));
    assert!(gateway.process.ended(DEADLINE).await.success());
    assert!(gateway.process.output().contains("everything was answered"));
}

#[tokio::test]
async fn open_websockets_get_close_1001_halfway_through_the_drain() {
    let mut echo = Echo::start().await;
    let mut gateway = over(echo.address, "shutdown_timeout_secs = 10", "").await;
    let (mut first, mut second) = (connect(&gateway).await, connect(&gateway).await);
    let since = Instant::now();
    gateway.process.signal(Signal::SIGTERM);
    while since.elapsed() < Duration::from_millis(4_000) {
        // In the first half of the drain, the sockets must not be affected.
        echoed(&mut first, Message::text("x")).await;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(next(&mut first).await, Some(close(1001, "")));
    assert_eq!(next(&mut second).await, Some(close(1001, "")));
    // The clients answer the Close, the backend closes, and no further message arrives.
    assert_eq!((next(&mut first).await, next(&mut second).await), (None, None));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(echo.event().await);
    }
    assert_eq!(seen.iter().filter(|event| **event == Event::Close(Some(1001))).count(), 2, "{seen:?}");
    assert!(gateway.process.ended(DEADLINE).await.success());
    let output = gateway.process.output();
    assert!(output.contains("everything was answered"), "before the time was up: {output}");
}

/// A backend that begins a message of eight bytes, and completes it after it has received a byte from the client.
async fn halting(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    stream.write_all(SWITCHED.as_bytes()).await?;
    stream.write_all(&[0x82, 8, 1, 2, 3]).await?;
    stream.read_u8().await?;
    stream.write_all(&[4, 5, 6, 7, 8]).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(|_| ())
}

#[tokio::test]
async fn close_frame_waits_for_the_end_of_a_message() {
    let mut gateway = over(raw::backend(halting).await, "shutdown_timeout_secs = 8", "").await;
    let mut client = raw::switched(gateway.address).await;
    let mut begin = [0; 5];
    client.read_exact(&mut begin).await.unwrap();
    gateway.process.signal(Signal::SIGTERM);
    // The Close would have been sent by this time.
    let more = timeout(Duration::from_millis(6_500), client.read_u8()).await;
    assert!(more.is_err(), "{more:?}");
    client.write_all(b"!").await.unwrap();
    let mut rest = [0; 9];
    timeout(DEADLINE, client.read_exact(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, [4, 5, 6, 7, 8, 0x88, 2, 0x03, 0xE9], "the message, and then the Close");
    drop(client);
    assert!(gateway.process.ended(DEADLINE).await.success());
}

#[tokio::test]
async fn websockets_are_closed_at_the_end_of_the_drain() {
    async fn deaf(mut stream: TcpStream) -> std::io::Result<()> {
        raw::head(&mut stream).await?;
        stream.write_all(SWITCHED.as_bytes()).await?;
        std::future::pending().await
    }
    let mut gateway = over(raw::backend(deaf).await, "shutdown_timeout_secs = 1", "").await;
    let mut client = raw::switched(gateway.address).await;
    gateway.process.signal(Signal::SIGTERM);
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xE9]);
    assert!(gateway.process.ended(DEADLINE).await.success());
    assert!(gateway.process.output().contains("stopped with connections open"));
}
