//! An upstream with one fault at a time. It uses raw TCP, parses requests itself and counts them. So it can
//! do things that no HTTP library does, at the moment that a test chooses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::Socket;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::origin::{bound_socket, listener, reserved};

/// Body of every response with status 200, unless the fault changes it.
const BODY: &str = "hello";

/// Complete response that belongs to no request. A client must not receive any part of it.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// Behaviour of a [`Faulty`] for each request, except probes of `/health` (see [`Health`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers 200 with the body `hello` and keeps the connection open. If the request expects 100
    /// (Continue), this is sent before the body is read.
    None,
    /// Answers with this status and no body.
    Status(u16),
    /// Resets a connection as soon as it is accepted.
    ResetOnAccept,
    /// Resets the connection when the first byte of a request has arrived, and reads none of it.
    ResetUnread,
    /// Reads the request and resets the connection.
    Reset,
    /// Resets the connection after two of the five bytes of the body.
    ResetInBody,
    /// Reads the request and never answers.
    Silence,
    /// Sends the body one byte at a time, with this pause after each.
    Drip(Duration),
    /// Sends one byte of the body for each call of [`Faulty::step`].
    Stepped,
    /// Announces a body of ten bytes, sends five and closes the connection.
    LengthTooLong,
    /// Sends a whole second response after the announced body.
    LengthTooShort,
    /// Announces two different lengths of the body.
    LengthsDiffer,
    /// Announces the same length in two fields.
    LengthsRepeat,
    /// Announces the same length twice in one field.
    LengthsListed,
    /// Switches protocols, although the request does not ask for it.
    SwitchUnasked,
    /// Sends bytes that are not HTTP.
    Garbage,
    /// Answers the first request of a connection as [`Fault::None`] does, and closes the connection when the
    /// first byte of a second request has arrived.
    CloseReused,
    /// Answers after the request's head, and then reads the body.
    AnswerEarly,
    /// Answers after the request's head and closes the connection at once, although the body may still
    /// arrive.
    AnswerEarlyAndClose,
    /// Answers as [`Fault::None`] does, but never sends 100 (Continue).
    IgnoreExpectation,
}

/// Response of a [`Faulty`] to a GET of `/health`. Faults that occur before a request is read also affect
/// probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every probe gets 200.
    Passes,
    /// Every probe gets 500.
    Fails,
    /// Probes get 500 and 200 in turn.
    Flaps,
}

/// Upstream on loopback with a fault. It keeps its port reserved while it is down.
pub struct Faulty {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<AbortOnDropHandle<()>>,
    _reserved: Socket,
}

struct Shared {
    fault: Mutex<Fault>,
    health: Mutex<Health>,
    /// Method and path of every request whose head was complete.
    seen: Mutex<Vec<(String, String)>>,
    connections: AtomicUsize,
    steps: Semaphore,
}

impl Faulty {
    /// Starts an upstream with this fault on a free port.
    pub async fn start(fault: Fault) -> Faulty {
        let mut faulty = Faulty::dead();
        faulty.behave(fault);
        faulty.revive();
        faulty
    }

    /// Creates an upstream without fault that is down: its port is reserved, and refuses connections.
    pub fn dead() -> Faulty {
        Faulty::at(reserved(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
    }

    /// Starts two upstreams without fault on the same port of 127.0.0.1 and 127.0.0.2, because the addresses
    /// of one name must share a port.
    pub async fn twins() -> [Faulty; 2] {
        loop {
            let mut first = Faulty::dead();
            let beside = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), first.address.port()));
            // Another process may use this port.
            let Ok(socket) = bound_socket(beside) else { continue };
            let mut second = Faulty::at((socket, beside));
            first.revive();
            second.revive();
            return [first, second];
        }
    }

    fn at((reserved, address): (Socket, SocketAddr)) -> Faulty {
        let shared = Arc::new(Shared {
            fault: Mutex::new(Fault::None),
            health: Mutex::new(Health::Passes),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            steps: Semaphore::new(0),
        });
        Faulty { address, shared, accepting: None, _reserved: reserved }
    }

    /// Returns the upstream's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the fault, from the next request on.
    pub fn behave(&self, fault: Fault) {
        *self.shared.fault.lock() = fault;
    }

    /// Sets the response to probes, from the next probe on.
    pub fn health(&self, health: Health) {
        *self.shared.health.lock() = health;
    }

    /// Lets an upstream with [`Fault::Stepped`] send the next byte.
    pub fn step(&self) {
        self.shared.steps.add_permits(1);
    }

    /// Returns the number of requests with this method and path whose heads were complete.
    pub fn seen(&self, method: &str, path: &str) -> usize {
        self.shared.seen.lock().iter().filter(|(m, p)| m == method && p == path).count()
    }

    /// Returns the number of probes.
    pub fn probes(&self) -> usize {
        self.seen("GET", "/health")
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Takes the upstream down: open connections are closed, and new ones are refused.
    pub async fn die(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // The sockets are closed only when the task has ended.
            let _ = accepting.await;
        }
    }

    /// Starts the upstream again on the same port.
    pub fn revive(&mut self) {
        if self.accepting.is_none() {
            self.accepting = Some(AbortOnDropHandle::new(tokio::spawn(accept(
                listener(self.address),
                self.shared.clone(),
            ))));
        }
    }
}

/// Accepts connections until the task is aborted, which also ends every connection.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connection(stream, shared.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Fate of a connection after a request.
enum Next {
    Keep,
    Close,
    Reset,
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without Nagle's algorithm, each byte is sent at once.
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    for requests in 0.. {
        match one_request(&mut stream, &shared, requests).await {
            Ok(Next::Keep) => {}
            Ok(Next::Reset) => {
                let _ = stream.get_ref().set_zero_linger();
                return;
            }
            // The client may end the connection in any way.
            Ok(Next::Close) | Err(_) => return,
        }
    }
}

/// Reads a request, unless the fault occurs before that, and answers it as the fault demands.
async fn one_request(stream: &mut BufReader<TcpStream>, shared: &Shared, before: usize) -> io::Result<Next> {
    if *shared.fault.lock() == Fault::ResetOnAccept {
        return Ok(Next::Reset);
    }
    if stream.buffer().is_empty() && stream.get_ref().peek(&mut [0]).await? == 0 {
        return Ok(Next::Close);
    }
    match *shared.fault.lock() {
        Fault::ResetUnread => return Ok(Next::Reset),
        Fault::CloseReused if before > 0 => return Ok(Next::Close),
        _ => {}
    }
    let head = Head::read(stream).await?;
    shared.seen.lock().push((head.method.clone(), head.path.clone()));
    let fault = *shared.fault.lock();
    if head.path == "/health" {
        let passes = match *shared.health.lock() {
            Health::Passes => true,
            Health::Fails => false,
            Health::Flaps => shared.probes().is_multiple_of(2),
        };
        return answer(stream, if passes { Fault::None } else { Fault::Status(500) }, shared).await;
    }
    match fault {
        Fault::AnswerEarly => {
            let next = answer(stream, Fault::None, shared).await?;
            head.body.read(stream).await?;
            return Ok(next);
        }
        Fault::AnswerEarlyAndClose => {
            answer(stream, Fault::None, shared).await?;
            return Ok(Next::Close);
        }
        Fault::IgnoreExpectation => {}
        _ if head.expects_continue => stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?,
        _ => {}
    }
    head.body.read(stream).await?;
    answer(stream, fault, shared).await
}

async fn answer(stream: &mut BufReader<TcpStream>, fault: Fault, shared: &Shared) -> io::Result<Next> {
    let ok = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}");
    let sound = ok("Content-Length: 5", BODY);
    let (bytes, next) = match fault {
        Fault::Silence => std::future::pending().await,
        Fault::ResetOnAccept | Fault::ResetUnread | Fault::Reset => return Ok(Next::Reset),
        Fault::Drip(pause) => {
            stream.write_all(ok("Content-Length: 5", "").as_bytes()).await?;
            for byte in BODY.bytes() {
                stream.write_u8(byte).await?;
                tokio::time::sleep(pause).await;
            }
            return Ok(Next::Keep);
        }
        Fault::Stepped => {
            stream.write_all(ok("Content-Length: 5", "").as_bytes()).await?;
            for byte in BODY.bytes() {
                // An error is impossible, because the semaphore is never closed.
                shared.steps.acquire().await.map_err(io::Error::other)?.forget();
                stream.write_u8(byte).await?;
            }
            return Ok(Next::Keep);
        }
        Fault::None
        | Fault::CloseReused
        | Fault::AnswerEarly
        | Fault::AnswerEarlyAndClose
        | Fault::IgnoreExpectation => (sound, Next::Keep),
        Fault::Status(status) => (format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n"), Next::Keep),
        Fault::ResetInBody => (ok("Content-Length: 5", &BODY[..2]), Next::Reset),
        Fault::LengthTooLong => (ok("Content-Length: 10", BODY), Next::Close),
        Fault::LengthTooShort => (sound + POISON, Next::Keep),
        Fault::LengthsDiffer => (ok("Content-Length: 5\r\nContent-Length: 6", "hello!"), Next::Keep),
        Fault::LengthsRepeat => (ok("Content-Length: 5\r\nContent-Length: 5", BODY), Next::Keep),
        Fault::LengthsListed => (ok("Content-Length: 5, 5", BODY), Next::Keep),
        Fault::SwitchUnasked => {
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: poison\r\n\r\npoison";
            (switch.to_owned(), Next::Keep)
        }
        Fault::Garbage => ("this is not HTTP\r\n\r\n".to_owned(), Next::Keep),
    };
    stream.write_all(bytes.as_bytes()).await?;
    Ok(next)
}

impl Shared {
    fn probes(&self) -> usize {
        self.seen.lock().iter().filter(|(_, path)| path == "/health").count()
    }
}

/// Parts of a request's head that this upstream needs.
struct Head {
    method: String,
    path: String,
    expects_continue: bool,
    body: Framing,
}

/// Framing of a request's body.
enum Framing {
    Length(usize),
    Chunked,
}

impl Head {
    async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Head> {
        let first = line(stream).await?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut head = Head { method, path, expects_continue: false, body: Framing::Length(0) };
        loop {
            let field = line(stream).await?.to_ascii_lowercase();
            match field.split_once(':').map(|(name, value)| (name, value.trim())) {
                None => return Ok(head),
                Some(("expect", value)) => head.expects_continue = value == "100-continue",
                Some(("transfer-encoding", "chunked")) => head.body = Framing::Chunked,
                Some(("content-length", value)) => head.body = Framing::Length(number(value, 10)?),
                Some(_) => {}
            }
        }
    }
}

impl Framing {
    /// Reads the body and discards it.
    async fn read(&self, stream: &mut BufReader<TcpStream>) -> io::Result<()> {
        match self {
            Framing::Length(length) => skip(stream, *length).await,
            Framing::Chunked => loop {
                let size = line(stream).await?;
                let size = number(size.split(';').next().unwrap_or_default(), 16)?;
                if size == 0 {
                    // After the last chunk there may be trailers, then an empty line.
                    while !line(stream).await?.is_empty() {}
                    return Ok(());
                }
                skip(stream, size + "\r\n".len()).await?;
            },
        }
    }
}

/// Returns the next line without its line ending.
async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    match line.ends_with('\n') {
        true => Ok(line.trim_end().to_owned()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn skip(stream: &mut BufReader<TcpStream>, bytes: usize) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut stream.take(bytes as u64), &mut tokio::io::sink()).await?;
    if skipped == bytes as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn number(digits: &str, radix: u32) -> io::Result<usize> {
    usize::from_str_radix(digits.trim(), radix).map_err(io::Error::other)
}
