//! Client and backends that use the `h2` crate. The client sees how each stream ended, and the backends end
//! streams as the test asks.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use testkit::DEADLINE;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// End of a stream, and the response before it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Error code of the reset, if the stream was reset.
    pub(crate) reset: Option<Reason>,
}

impl Exchange {
    /// Returns a field of the trailers, or of the head if the response has no trailers.
    pub(crate) fn last_field(&self, name: &str) -> &str {
        let value = self.trailers.as_ref().unwrap_or(&self.headers).get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// Opens a connection and returns a client on it.
pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    connect_over(TcpStream::connect(address).await.unwrap()).await
}

/// Returns a client on this connection.
pub(crate) async fn connect_over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Sends a whole request and waits for the end of its stream. Returns the error of the stream or the connection
/// if no head arrived.
pub(crate) async fn send(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: impl Into<Bytes>,
) -> Result<Exchange, h2::Error> {
    send_and(client, request, body, || ()).await
}

/// Sends a request like [`send`], and calls `on_part` for each part of the response's body.
pub(crate) async fn send_and(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: impl Into<Bytes>,
    on_part: impl Fn(),
) -> Result<Exchange, h2::Error> {
    let body = body.into();
    let mut client = client.clone().ready().await?;
    let (response, mut sending) = client.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        sending.send_data(body, true)?;
    }
    ended(response, on_part).await
}

/// Waits for the end of a stream.
async fn ended(response: h2::client::ResponseFuture, on_part: impl Fn()) -> Result<Exchange, h2::Error> {
    let reading = async {
        let (head, mut incoming) = response.await?.into_parts();
        let (status, headers) = (head.status, head.headers);
        let mut exchange = Exchange { status, headers, body: Vec::new(), trailers: None, reset: None };
        while let Some(part) = incoming.data().await {
            match part {
                Ok(part) => {
                    exchange.body.extend_from_slice(&part);
                    let _ = incoming.flow_control().release_capacity(part.len());
                    if !part.is_empty() {
                        on_part();
                    }
                }
                Err(error) => {
                    exchange.reset = error.reason();
                    return Ok(exchange);
                }
            }
        }
        match incoming.trailers().await {
            Ok(trailers) => exchange.trailers = trailers,
            Err(error) => exchange.reset = error.reason(),
        }
        Ok(exchange)
    };
    timeout(DEADLINE, reading).await.unwrap_or_else(|_| panic!("the stream does not end"))
}

/// Reaction of a [`Backend`] to each stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Reads the request and never responds.
    Silence,
    /// Sends the head and one message of a gRPC response, and then nothing.
    BeginAndSilence,
    /// Resets the stream.
    Reset(Reason),
    /// Refuses the first stream and answers the next ones.
    RefuseFirst,
    /// Sends GOAWAY, and the head and one message of a gRPC response. It sends the rest when the test calls
    /// [`go_on`](Backend::go_on).
    BeginAndGoAway,
    /// Sends the head and one message of a gRPC response, and then resets the stream.
    ///
    /// The reset waits for [`go_on`](Backend::go_on), because it would overtake data that has not been written yet.
    BeginAndReset(Reason),
    /// Sends the head and one message of a gRPC response, and closes the connection when the test calls
    /// [`go_on`](Backend::go_on).
    BeginAndClose,
    /// Answers with this status and an HTML page.
    Html(u16),
    /// Sends trailers in a response that is not gRPC.
    Trailers,
}

/// A gRPC message that says "hi".
pub(crate) const MESSAGE: &[u8] = b"\0\0\0\0\x02hi";

/// An HTTP/2 backend without TLS, at a free address. It stops when this is dropped.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    told: Arc<Notify>,
    _running: AbortOnDropHandle<()>,
}

impl Backend {
    pub(crate) async fn start(does: Does) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::<Notify>::default();
        let tell = told.clone();
        let serving = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, does, tell.clone()));
            }
        };
        Backend { address, told, _running: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    /// Lets the backend continue at the point where it waits.
    pub(crate) fn go_on(&self) {
        self.told.notify_one();
    }
}

async fn serve(stream: TcpStream, does: Does, told: Arc<Notify>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let (close, mut closing) = tokio::sync::mpsc::channel(1);
    let mut count = 0;
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                count += 1;
                if matches!(does, Does::BeginAndGoAway) {
                    connection.graceful_shutdown();
                }
                let does = match does {
                    Does::RefuseFirst if count == 1 => Does::Reset(Reason::REFUSED_STREAM),
                    does => does,
                };
                let (close, told) = (close.clone(), told.clone());
                tokio::spawn(async move {
                    if answer(request, respond, does, &told).await {
                        let _ = close.send(()).await;
                    }
                });
            }
            _ = closing.recv() => return,
        }
    }
}

/// Answers a stream. Returns true if the connection must be closed.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    does: Does,
    told: &Notify,
) -> bool {
    let mut body = request.into_body();
    while let Some(Ok(part)) = body.data().await {
        let _ = body.flow_control().release_capacity(part.len());
    }
    match does {
        Does::Silence => std::future::pending::<()>().await,
        Does::Reset(reason) => respond.send_reset(reason),
        Does::Html(status) => {
            let head =
                Response::builder().status(status).header("content-type", "text/html").body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data(Bytes::from_static(b"<html>"), true).unwrap();
        }
        Does::Trailers => {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), false).unwrap();
            body.send_trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("x-checksum"),
                "abc".parse().unwrap(),
            )]))
            .unwrap();
        }
        Does::RefuseFirst | Does::BeginAndGoAway => {
            let mut body = begin(&mut respond);
            if matches!(does, Does::BeginAndGoAway) {
                told.notified().await;
            }
            let fields = [(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())];
            body.send_trailers(HeaderMap::from_iter(fields)).unwrap();
        }
        Does::BeginAndSilence => {
            let _body = begin(&mut respond);
            std::future::pending::<()>().await;
        }
        Does::BeginAndReset(reason) => {
            let _body = begin(&mut respond);
            told.notified().await;
            respond.send_reset(reason);
        }
        Does::BeginAndClose => {
            let _body = begin(&mut respond);
            told.notified().await;
            return true;
        }
    }
    false
}

fn begin(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut body = respond.send_response(head, false).unwrap();
    body.send_data(Bytes::from_static(MESSAGE), false).unwrap();
    body
}
