//! Clients that send requests without pause on persistent connections and tolerate no error. A request without
//! a response counts as an error, and so does a connection that closes without announcement.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use testkit::DEADLINE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Continuous requests of several clients.
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    answered: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Load {
    pub(super) fn new() -> Load {
        Load { shared: Arc::default(), clients: Vec::new() }
    }

    /// Adds `clients` clients that request `path` from `address`, with a `pause` between a response and the
    /// next request.
    pub(super) fn and(mut self, clients: usize, address: SocketAddr, path: &str, pause: Duration) -> Load {
        for _ in 0..clients {
            let (shared, path) = (self.shared.clone(), path.to_owned());
            self.clients.push(tokio::spawn(ask(shared, address, path, pause)));
        }
        self
    }

    /// Adds `clients` HTTP/2 clients (prior knowledge). Each sends four requests at once on one connection
    /// until it gets a GOAWAY.
    pub(super) fn and_http2(mut self, clients: usize, address: SocketAddr, path: &str) -> Load {
        for _ in 0..clients {
            let (shared, uri) = (self.shared.clone(), format!("http://{address}{path}"));
            self.clients.push(tokio::spawn(async move {
                while !shared.stopped.load(Ordering::Relaxed) {
                    if let Err(why) = until_told_to_go(&shared, address, &uri).await {
                        shared.failures.lock().push(format!("{uri} over HTTP/2: {why}"));
                    }
                }
            }));
        }
        self
    }

    /// Returns the number of requests answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Stops the clients. Returns the number of answered requests, and the errors of the others.
    pub(super) async fn stop(self) -> (u64, Vec<String>) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        let failures = std::mem::take(&mut *self.shared.failures.lock());
        (self.shared.answered.load(Ordering::Relaxed), failures)
    }
}

async fn ask(shared: Arc<Shared>, address: SocketAddr, path: String, pause: Duration) {
    let mut kept = None;
    while !shared.stopped.load(Ordering::Relaxed) {
        match timeout(DEADLINE, one(&mut kept, address, &path)).await {
            Ok(Ok(())) => {
                shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            failed => {
                kept = None;
                let why =
                    failed.map_or_else(|_| "no answer in time".to_owned(), |failed| failed.unwrap_err());
                shared.failures.lock().push(format!("{address}{path}: {why}"));
            }
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Sends requests on an HTTP/2 connection until it gets a GOAWAY (RFC 9113 6.8). Every request that was sent
/// must be answered.
async fn until_told_to_go(shared: &Shared, address: SocketAddr, uri: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    let driving = tokio::spawn(connection);
    while !shared.stopped.load(Ordering::Relaxed) {
        let mut sent = Vec::new();
        for _ in 0..4 {
            let Ok(mut ready) = client.clone().ready().await else { break };
            let request = http::Request::get(uri).body(()).unwrap();
            sent.push(ready.send_request(request, true).map_err(|error| error.to_string())?.0);
        }
        let is_told = sent.len() < 4;
        for response in sent {
            let response = timeout(DEADLINE, response).await.map_err(|_| "no answer in time")?;
            let (head, mut body) = response.map_err(|error| error.to_string())?.into_parts();
            if head.status != 200 {
                return Err(head.status.to_string());
            }
            while let Some(part) = body.data().await {
                let part = part.map_err(|error| error.to_string())?;
                let _ = body.flow_control().release_capacity(part.len());
            }
            shared.answered.fetch_add(1, Ordering::Relaxed);
        }
        if is_told {
            break;
        }
    }
    drop(client);
    let _ = timeout(DEADLINE, driving).await;
    Ok(())
}

/// Sends a request on the kept connection or on a new one. The connection is kept if the response allows it.
async fn one(kept: &mut Option<TcpStream>, address: SocketAddr, path: &str) -> Result<(), String> {
    let is_new = kept.is_none();
    let failed = |step: &'static str| {
        move |error: std::io::Error| {
            let which = if is_new { "new" } else { "kept" };
            format!("{step}, on a {which} connection: {error}")
        }
    };
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.map_err(failed("connect"))?,
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed("write"))?;
    let head = head(&mut stream).await.map_err(failed("read"))?;
    if !head.starts_with("http/1.1 200 ") {
        return Err(head);
    }
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length = field("content-length:").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.ok_or("an answer without Content-Length")?];
    stream.read_exact(&mut body).await.map_err(failed("read the body"))?;
    *kept = (field("connection:") != Some("close")).then_some(stream);
    Ok(())
}

/// Reads the head of a response, and returns it in lower case.
async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).to_lowercase())
}
