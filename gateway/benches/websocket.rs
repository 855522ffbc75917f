//! Measures a thousand WebSockets at once, with large messages and a long silence: `cargo bench --bench websocket`.
//!
//! Each of 1 000 clients sends messages of 64 KiB through the gateway to a backend that echoes them, and checks
//! the echo. Then all clients are silent for 90 seconds. Then each client sends one more message. The program
//! prints how many sockets were lost, the times, and the memory of the gateway. Another number of silent
//! seconds may follow `--`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it prints figures; a panic is the report")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use testkit::Process;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

const SOCKETS: usize = 1_000;
const LENGTH: usize = 64 * 1024;
const MESSAGES: usize = 10;
const SILENT_SECS: u64 = 90;

type Socket = WebSocketStream<TcpStream>;

#[tokio::main]
async fn main() {
    let silent = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(SILENT_SECS);
    // Both ends of each socket are in this process, so it needs many file descriptors.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let config = format!(
        "[proxy]\nlisten_addr_http = \"127.0.0.1:0\"\nmanagement_api = false\n\
         [metrics]\nenabled = false\n[logging]\naccess_log = false\n[health_check]\nenabled = false\n\
         [[virtual_hosts]]\ndomain = \"*\"\nenabled_backends_tag = \"all\"\n\
         [[backends]]\nid = \"echo\"\naddress = \"{}\"\ntags = [\"all\"]\n",
        echo().await
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("websocket.toml");
    std::fs::write(&file, config).unwrap();
    let gateway = Process::spawn(env!("CARGO_BIN_EXE_gateway"), &["-c", &file.display().to_string()], &[]);
    let line = gateway.line("listening on http://").await;
    let address: SocketAddr = line.rsplit("http://").next().unwrap().parse().unwrap();

    println!(
        "{SOCKETS} sockets, messages of {} KiB; the gateway begins with {}",
        LENGTH >> 10,
        memory(&gateway)
    );
    let began = Instant::now();
    let mut sockets = Vec::new();
    while sockets.len() < SOCKETS {
        // At most as many connections at once as fit into a listen backlog.
        sockets.extend(join_all((0..100).map(|_| connect(address))).await);
    }
    println!("open after {:.1?}: the gateway holds {}", began.elapsed(), memory(&gateway));
    let began = Instant::now();
    let lost = talk(&mut sockets, MESSAGES).await;
    let (elapsed, bytes) = (began.elapsed(), (SOCKETS * MESSAGES * LENGTH) as f64);
    let rate = bytes / elapsed.as_secs_f64() / f64::from(1 << 20);
    println!("{MESSAGES} messages each: {lost} sockets lost, {elapsed:.1?}, {rate:.0} MiB/s each way");
    println!("the gateway holds {}", memory(&gateway));
    tokio::time::sleep(Duration::from_secs(silent)).await;
    println!("after {silent} s of silence the gateway holds {}", memory(&gateway));
    let began = Instant::now();
    let lost = talk(&mut sockets, 1).await;
    println!("one more message each: {lost} sockets lost, {:.1?}", began.elapsed());
}

/// Starts a backend that echoes messages.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if !message.is_close() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn connect(address: SocketAddr) -> Socket {
    let stream = TcpStream::connect(address).await.unwrap();
    client_async("ws://gateway.test/", stream).await.unwrap().0
}

/// Sends `messages` messages on all sockets at once and checks the echoes. Returns the number of sockets that failed.
async fn talk(sockets: &mut [Socket], messages: usize) -> usize {
    let talks = sockets.iter_mut().enumerate().map(|(n, socket)| async move {
        let message = Message::binary(vec![n as u8; LENGTH]);
        for _ in 0..messages {
            if socket.send(message.clone()).await.is_err() {
                return false;
            }
            if !matches!(socket.next().await, Some(Ok(echo)) if echo == message) {
                return false;
            }
        }
        true
    });
    join_all(talks).await.into_iter().filter(|is_whole| !is_whole).count()
}

/// Returns the resident memory of a process, as text.
fn memory(process: &Process) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or("an unknown amount of memory".to_owned(), |line| line.trim().to_owned())
}
