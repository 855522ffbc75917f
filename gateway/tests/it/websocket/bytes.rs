//! Byte transport of a tunnel, independent of the content.

use std::time::Duration;

use futures::future::join_all;
use testkit::DEADLINE;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::raw::{self, SWITCHED};
use crate::support::{Gateway, Setup};

/// A backend that reads bytes and sends them back before it reads on.
async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    stream.write_all(SWITCHED.as_bytes()).await?;
    let (mut reader, mut writer) = stream.split();
    copy(&mut reader, &mut writer).await.map(|_| ())
}

/// A backend that sends 101 before it has read the request, and then echoes.
async fn hasty_echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(SWITCHED.as_bytes()).await?;
    raw::head(&mut stream).await?;
    let (mut reader, mut writer) = stream.split();
    copy(&mut reader, &mut writer).await.map(|_| ())
}

async fn over(backend: std::net::SocketAddr) -> Gateway {
    let tables = "[health_check]\nenabled = false\n";
    Gateway::start_over(&[backend], Setup { tables, ..Setup::default() }).await
}

/// The response may arrive before Pingora has processed the end of the (empty) request body.
#[tokio::test]
async fn no_tunnel_ends_because_its_backend_was_quick() {
    let gateway = over(raw::backend(hasty_echo).await).await;
    for n in 0..200 {
        let mut client = raw::switched(gateway.address).await;
        client.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        let read = timeout(DEADLINE, client.read_exact(&mut answer)).await.unwrap();
        assert!(read.is_ok() && &answer == b"ping", "the {n}th: {read:?}");
    }
}

/// The backend does not read while it sends, and the client sends as fast as it can while it reads. Neither
/// direction may wait for the other.
#[tokio::test]
async fn directions_do_not_wait_for_each_other() {
    const LENGTH: u64 = 64 << 20;
    let gateway = over(raw::backend(echo).await).await;
    let (mut reader, mut writer) = raw::switched(gateway.address).await.into_split();
    let writing = tokio::spawn(async move {
        let chunk = vec![7; 1 << 20];
        for _ in 0..LENGTH >> 20 {
            writer.write_all(&chunk).await?;
        }
        writer.shutdown().await?;
        std::io::Result::Ok(writer)
    });
    let mut read = 0;
    let mut buffer = vec![0; 64 << 10];
    while read < LENGTH {
        match timeout(DEADLINE, reader.read(&mut buffer)).await {
            Ok(Ok(more @ 1..)) => read += more as u64,
            other => panic!("{read} bytes came back, then {other:?}"),
        }
    }
    writing.await.unwrap().unwrap();
}

/// A backend that sends 101 and then reads nothing.
async fn deaf(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    stream.write_all(SWITCHED.as_bytes()).await?;
    std::future::pending().await
}

/// Sends until no byte was accepted for a while. Returns the number of bytes sent.
async fn fill(stream: &mut TcpStream) -> usize {
    let chunk = vec![7; 64 << 10];
    let mut sent = 0;
    while let Ok(Ok(more)) = timeout(Duration::from_millis(500), stream.write(&chunk)).await {
        sent += more;
        if sent > LIMIT {
            break;
        }
    }
    sent
}

/// More than all socket buffers on the way can hold, with every system setting.
const LIMIT: usize = 64 << 20;

/// Number of stuck tunnels, not counting the first one, which makes the process allocate its fixed memory.
const STUCK: usize = 16;

/// Memory limit for each tunnel: less than the socket buffers on the way, and more than a tunnel needs.
const EACH: usize = 1 << 20;

async fn memory(gateway: &Gateway) -> f64 {
    gateway.metric("process_resident_memory_bytes").await
}

#[tokio::test]
async fn a_backend_that_does_not_read_has_its_client_stop() {
    let gateway = over(raw::backend(deaf).await).await;
    let stick = || async {
        let mut client = raw::switched(gateway.address).await;
        let sent = fill(&mut client).await;
        assert!(sent < LIMIT, "{sent} bytes were taken by nobody");
        client
    };
    let _first = stick().await;
    let before = memory(&gateway).await;
    let _clients = join_all((0..STUCK).map(|_| stick())).await;
    let grown = memory(&gateway).await - before;
    assert!(grown < (STUCK * EACH) as f64, "the gateway holds {grown} bytes of it");
}

#[tokio::test]
async fn a_client_that_does_not_read_has_its_backend_stop() {
    let (tell, mut told) = unbounded_channel();
    // A backend that sends 101, and then sends until its bytes are no longer accepted.
    let gushes = move |mut stream: TcpStream| {
        let tell = tell.clone();
        async move {
            raw::head(&mut stream).await?;
            stream.write_all(SWITCHED.as_bytes()).await?;
            let _ = tell.send(fill(&mut stream).await);
            std::future::pending().await
        }
    };
    let gateway = over(raw::backend(gushes).await).await;
    let mut before = 0.0;
    let mut clients = Vec::new();
    for sockets in [1, STUCK] {
        clients.extend(join_all((0..sockets).map(|_| raw::switched(gateway.address))).await);
        for _ in 0..sockets {
            let sent = timeout(4 * DEADLINE, told.recv()).await.unwrap().unwrap();
            assert!(sent < LIMIT, "{sent} bytes were taken by nobody");
        }
        if sockets == 1 {
            before = memory(&gateway).await;
        }
    }
    let grown = memory(&gateway).await - before;
    assert!(grown < (STUCK * EACH) as f64, "the gateway holds {grown} bytes of it");
}

/// A backend that answers after the client has sent everything.
async fn answers_at_the_end(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    stream.write_all(SWITCHED.as_bytes()).await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    said.reverse();
    stream.write_all(&said).await
}

#[tokio::test]
async fn a_client_that_has_said_all_is_answered() {
    let gateway = over(raw::backend(answers_at_the_end).await).await;
    let mut client = raw::switched(gateway.address).await;
    client.write_all(b"stressed").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "desserts");
}

/// A backend that sends frames in one segment with the 101, and closes.
async fn says_it_at_once(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    stream.write_all(format!("{interim}{SWITCHED}\u{1}\u{2}last\r\n\r\nwords").as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(|_| ())
}

#[tokio::test]
async fn bytes_sent_with_the_101_are_passed_on_after_it() {
    let gateway = over(raw::backend(says_it_at_once).await).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(raw::REQUEST.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 103 ") && answer.contains("HTTP/1.1 101 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n\u{1}\u{2}last\r\n\r\nwords"), "{answer}");
}
