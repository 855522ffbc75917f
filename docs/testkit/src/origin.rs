//! An upstream on a port of its own that records what it received and misbehaves on request.

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
use tokio::task::{JoinHandle, JoinSet};
use tokio_openssl::SslStream;

use crate::POLL;
use crate::tls::{Authority, Identity};

/// What an [`Origin`] does with the next requests that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers as the `origin` crate does (see its list of paths).
    Answer,
    /// Answers every request with this status and no body.
    Status(u16),
    /// Takes the request and never answers.
    Stall,
    /// Takes the request and resets the connection.
    Reset,
    /// Answers as with [`Behaviour::Answer`], and adds this header field.
    Header(&'static str, &'static str),
    /// Answers 200 with these pieces of text, each in a chunk and a segment of its own.
    Chunks(&'static [&'static str]),
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// The version of HTTP that it came by.
    pub version: Version,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

impl Received {
    /// The value of a header field, or "" where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not ASCII)"))
    }
}

/// A real origin on loopback. Its port stays its own while it is dead, so that it can come back there.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    /// Bound and never listening: connections are refused while the origin is dead, and nobody else
    /// can be given the port.
    _reserved: Socket,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    received: Mutex<Vec<Received>>,
    app: Router,
    /// What it proves to be, where it speaks TLS.
    tls: Option<SslAcceptor>,
}

impl Origin {
    /// Starts an origin on a free port. Its answers bear its port as label.
    pub async fn start() -> Origin {
        let mut origin = Origin::dead();
        origin.revive();
        origin
    }

    /// The same over TLS.
    pub async fn start_tls(identity: &Identity) -> Origin {
        let mut origin = Origin::reserve(Some(identity.acceptor(None)));
        origin.revive();
        origin
    }

    /// The same, for clients alone that show a certificate of `clients`.
    pub async fn start_mutual_tls(identity: &Identity, clients: &Authority) -> Origin {
        let mut origin = Origin::reserve(Some(identity.acceptor(Some(clients))));
        origin.revive();
        origin
    }

    /// An origin that is dead so far: its port is its own, and refuses.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The label in its answers (and in their `x-origin` header).
    pub fn label(&self) -> String {
        self.address.port().to_string()
    }

    /// What it does from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock() = behaviour;
    }

    /// Every request so far, oldest first; those that it stalled or reset too.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().clone()
    }

    /// How many requests have reached it for `path`.
    pub fn count(&self, path: &str) -> usize {
        self.shared.received.lock().iter().filter(|request| request.uri.path() == path).count()
    }

    /// Forgets what it has received.
    pub fn forget(&self) {
        self.shared.received.lock().clear();
    }

    /// Dies: open connections are reset, new ones refused.
    pub async fn die(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // It is dead only when its task is gone, and its sockets with it.
            let _ = accepting.await;
        }
    }

    /// Comes back on the same port.
    pub fn revive(&mut self) {
        if self.accepting.is_some() {
            return;
        }
        self.accepting = Some(tokio::spawn(accept(listener(self.address), self.shared.clone())));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

/// A socket that is bound and never listens, and its address: while it is there, nobody else is given the port.
pub(crate) fn reserved(address: SocketAddr) -> (Socket, SocketAddr) {
    let socket = bound_socket(address).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
    match socket.local_addr().map(|address| address.as_socket()) {
        Ok(Some(address)) => (socket, address),
        other => panic!("no address for the origin: {other:?}"),
    }
}

/// A listener beside the socket that is [`reserved`].
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

/// Accepts until it is aborted, which ends every connection with it.
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
    // Until the connection has ended well, its end is a reset.
    let ending = ResetOnDrop { handle, armed: true };
    // Each chunk of an answer leaves in a segment of its own.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(Notify::new());
    let serving = async {
        match &shared.tls {
            None => serve(stream, &shared, &reset).await,
            Some(acceptor) => {
                let accepted = Ssl::new(acceptor.context()).and_then(|ssl| SslStream::new(ssl, stream));
                let Ok(mut stream) = accepted else { return };
                // A client that speaks no TLS, or does not trust us, has no connection.
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
    // How a connection ends is the other side's business.
    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(app)).await;
}

/// Makes the kernel answer the close of a socket with RST, as a process that was killed would.
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
            // A socket that is gone already needs no reset.
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

/// The pieces one by one, with a turn of the runtime between them, in which the one before is sent.
fn in_pieces(pieces: &'static [&'static str]) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::iter(pieces).then(|piece| async {
        tokio::time::sleep(POLL).await;
        Ok(Bytes::from_static(piece.as_bytes()))
    })
}
