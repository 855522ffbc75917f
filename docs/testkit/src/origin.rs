//! An upstream on its own port that records the requests it receives and misbehaves on request.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use openssl::ssl::{Ssl, SslAcceptor};
use parking_lot::Mutex;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_openssl::SslStream;
use tokio_util::task::AbortOnDropHandle;

use crate::POLL;
use crate::tls::{Authority, Identity};

/// Behaviour of an [`Origin`] for the next requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers as the `origin` crate does (see its list of paths).
    Answer,
    /// Answers every request with this status and no body.
    Status(u16),
    /// Reads the request and never answers.
    Stall,
    /// Reads the request and resets the connection.
    Reset,
    /// Answers as [`Behaviour::Answer`] does, and adds this header field.
    Header(&'static str, &'static str),
    /// Answers 200 with these pieces of text, each in a separate chunk and TCP segment.
    Chunks(&'static [&'static str]),
}

/// Request as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method of the request.
    pub method: Method,
    /// Target of the request.
    pub uri: Uri,
    /// Version of HTTP that the client used.
    pub version: Version,
    /// Header fields of the request.
    pub headers: HeaderMap,
    /// Complete body of the request.
    pub body: Bytes,
}

impl Received {
    /// Returns the value of a header field, or "" if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not ASCII)"))
    }
}

/// Real origin on loopback. It keeps its port reserved while it is down, so that it can return there.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<AbortOnDropHandle<()>>,
    /// Bound socket that never listens: while the origin is down, connections are refused, and the kernel
    /// gives the port to no other process.
    _reserved: Socket,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    received: Mutex<Vec<Received>>,
    app: Router,
    /// TLS acceptor with the origin's certificate; `None` without TLS.
    tls: Option<SslAcceptor>,
}

impl Origin {
    /// Starts an origin on a free port. Its label is the port.
    pub async fn start() -> Origin {
        let mut origin = Origin::dead();
        origin.revive();
        origin
    }

    /// Starts an origin over TLS with the certificate of `identity`.
    pub async fn start_tls(identity: &Identity) -> Origin {
        let mut origin = Origin::reserve(Some(identity.acceptor(None)));
        origin.revive();
        origin
    }

    /// Starts an origin over TLS that only accepts clients with a certificate of `clients`.
    pub async fn start_mutual_tls(identity: &Identity, clients: &Authority) -> Origin {
        let mut origin = Origin::reserve(Some(identity.acceptor(Some(clients))));
        origin.revive();
        origin
    }

    /// Creates an origin that is down: its port is reserved, and refuses connections.
    pub fn dead() -> Origin {
        Origin::reserve(None)
    }

    fn reserve(tls: Option<SslAcceptor>) -> Origin {
        let (reserved, address) = reserved(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Behaviour::Answer),
            received: Mutex::default(),
            app: ::origin::app(&address.port().to_string()),
            tls,
        });
        Origin { address, shared, accepting: None, _reserved: reserved }
    }

    /// Returns the origin's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the label in the origin's responses (and in their `x-origin` header).
    pub fn label(&self) -> String {
        self.address.port().to_string()
    }

    /// Sets the behaviour, from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock() = behaviour;
    }

    /// Returns all requests so far, oldest first, including those that were stalled or reset.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().clone()
    }

    /// Returns the number of requests for `path`.
    pub fn count(&self, path: &str) -> usize {
        self.shared.received.lock().iter().filter(|request| request.uri.path() == path).count()
    }

    /// Clears the list of received requests.
    pub fn forget(&self) {
        self.shared.received.lock().clear();
    }

    /// Takes the origin down: open connections are reset, and new ones are refused.
    pub async fn die(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // The sockets are closed only when the task has ended.
            let _ = accepting.await;
        }
    }

    /// Starts the origin again on the same port.
    pub fn revive(&mut self) {
        if self.accepting.is_some() {
            return;
        }
        self.accepting =
            Some(AbortOnDropHandle::new(tokio::spawn(accept(listener(self.address), self.shared.clone()))));
    }
}

/// Returns a socket that is bound and never listens, and its address. While the socket exists, the kernel
/// gives the port to no other process.
pub(crate) fn reserved(address: SocketAddr) -> (Socket, SocketAddr) {
    let socket = bound_socket(address).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
    match socket.local_addr().map(|address| address.as_socket()) {
        Ok(Some(address)) => (socket, address),
        other => panic!("cannot read the origin's address: {other:?}"),
    }
}

/// Returns an address that refuses connections until the process ends. The address of an [`Origin::dead`] does so only
/// while the origin exists: later, another server of the same process may get its port.
pub fn dead_address() -> SocketAddr {
    static RESERVED: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let (socket, address) = reserved(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    RESERVED.lock().push(socket);
    address
}

/// Returns a listener on the address of a [`reserved`] socket.
pub(crate) fn listener(address: SocketAddr) -> TcpListener {
    let listening = bound_socket(address).and_then(|socket| {
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    });
    listening.unwrap_or_else(|error| panic!("the origin cannot listen on {address}: {error}"))
}

pub(crate) fn bound_socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts connections until the task is aborted, which also ends every connection.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, shared.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let Ok(handle) = stream.as_fd().try_clone_to_owned() else { return };
    // The connection is reset on drop, unless it ends normally.
    let ending = ResetOnDrop { handle, armed: true };
    // Without Nagle's algorithm, each chunk is sent in a separate segment.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(Notify::new());
    let serving = async {
        match &shared.tls {
            None => serve(stream, &shared, &reset).await,
            Some(acceptor) => {
                let accepted = Ssl::new(acceptor.context()).and_then(|ssl| SslStream::new(ssl, stream));
                let Ok(mut stream) = accepted else { return };
                // A client that does not speak TLS, or does not trust the origin, gets no connection.
                if Pin::new(&mut stream).accept().await.is_ok() {
                    serve(stream, &shared, &reset).await;
                }
            }
        }
    };
    tokio::select! {
        () = serving => ending.disarm(),
        () = reset.notified() => {}
    }
}

async fn serve<S>(stream: S, shared: &Arc<Shared>, reset: &Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let app = shared
        .app
        .clone()
        .layer(middleware::from_fn_with_state(shared.clone(), misbehave))
        .layer(Extension(reset.clone()));
    let server = auto::Builder::new(TokioExecutor::new());
    // The client may end the connection in any way.
    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(app)).await;
}

/// Guard that makes the kernel close a socket with RST, as it does for a killed process.
struct ResetOnDrop {
    handle: OwnedFd,
    armed: bool,
}

impl ResetOnDrop {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if self.armed {
            // The call fails if the socket is already closed, which is fine.
            let _ = SockRef::from(&self.handle).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

async fn misbehave(
    State(shared): State<Arc<Shared>>,
    Extension(reset): Extension<Arc<Notify>>,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    shared.received.lock().push(Received {
        method: head.method.clone(),
        uri: head.uri.clone(),
        version: head.version,
        headers: head.headers.clone(),
        body: body.clone(),
    });
    let behaviour = *shared.behaviour.lock();
    match behaviour {
        Behaviour::Answer => next.run(Request::from_parts(head, Body::from(body))).await,
        Behaviour::Status(code) => {
            StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }
        Behaviour::Stall => std::future::pending().await,
        Behaviour::Header(name, value) => {
            let mut response = next.run(Request::from_parts(head, Body::from(body))).await;
            response.headers_mut().insert(name, HeaderValue::from_static(value));
            response
        }
        Behaviour::Chunks(pieces) => Body::from_stream(in_pieces(pieces)).into_response(),
        Behaviour::Reset => {
            reset.notify_one();
            std::future::pending().await
        }
    }
}

/// Returns the pieces one by one, with a pause between them in which the runtime sends the previous one.
fn in_pieces(pieces: &'static [&'static str]) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::iter(pieces).then(|piece| async {
        tokio::time::sleep(POLL).await;
        Ok(Bytes::from_static(piece.as_bytes()))
    })
}
