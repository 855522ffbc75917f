//! What a tunnel does with bytes, whatever they mean.

use testkit::DEADLINE;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::raw::{self, SWITCHED};
use crate::support::{Gateway, Setup};

/// Reads, and sends what it has read before it reads on.
async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    raw::head(&mut stream).await?;
    stream.write_all(SWITCHED.as_bytes()).await?;
    let (mut reader, mut writer) = stream.split();
    copy(&mut reader, &mut writer).await.map(|_| ())
}

/// Agrees before it has been asked, and then echoes.
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

/// The answer may be there before Pingora has so much as looked at the end of the (empty) body of the request.
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

/// A backend that does not read while it sends, and a client that sends as fast as it can while it reads: nothing
/// may wait for the other direction.
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
