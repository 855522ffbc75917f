//! A real gRPC service, made with tonic. Its messages are plain text, so that no protobuf compiler is needed.
//! The tests are about the transport of the messages.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BufMut};
use futures::{Stream, StreamExt, stream};
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::service_fn;

/// Codec of messages that consist of text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Text;
    type Decoder = Text;
    fn encoder(&mut self) -> Text {
        Text
    }
    fn decoder(&mut self) -> Text {
        Text
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;
    fn encode(&mut self, item: String, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The service, at a free address. It stops when this is dropped.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    _running: AbortOnDropHandle<Result<(), tonic::transport::Error>>,
}

/// Record of the calls that the service got.
#[derive(Default)]
pub(crate) struct Seen {
    /// Metadata of every call.
    pub(crate) calls: Mutex<Vec<HeaderMap>>,
    /// Number of active calls.
    pub(crate) active: AtomicUsize,
    /// Highest number of calls that were active at once.
    pub(crate) peak: AtomicUsize,
    /// Number of messages received.
    pub(crate) messages: AtomicUsize,
}

impl Seen {
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    fn heard(&self) {
        self.messages.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts a call as active until it is dropped. That includes calls that end early.
struct Active(Arc<Seen>);

impl Active {
    fn begin(seen: &Arc<Seen>) -> Self {
        let active = seen.active.fetch_add(1, Ordering::SeqCst) + 1;
        seen.peak.fetch_max(active, Ordering::SeqCst);
        Active(seen.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Echo {
    pub(crate) async fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let service = {
            let seen = seen.clone();
            service_fn(move |request| answer(request, seen.clone()))
        };
        let serving = Server::builder().serve_with_incoming(service, TcpIncoming::from(listener));
        Echo { address, seen, _running: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }
}

type Body = tonic::body::Body;

async fn answer(request: http::Request<Body>, seen: Arc<Seen>) -> Result<http::Response<Body>, Infallible> {
    seen.calls.lock().push(request.headers().clone());
    let active = Active::begin(&seen);
    let mut grpc = tonic::server::Grpc::new(Text);
    Ok(match request.uri().path() {
        "/test.Echo/Unary" => {
            let call = service_fn(move |request: Request<String>| {
                let _counted = &active;
                seen.heard();
                unary(request)
            });
            grpc.unary(call, request).await
        }
        "/test.Echo/Wait" => {
            let mut active = Some(active);
            let call = service_fn(move |_: Request<String>| {
                let active = active.take();
                async move {
                    let _counted = active;
                    std::future::pending::<Result<Response<String>, Status>>().await
                }
            });
            grpc.unary(call, request).await
        }
        "/test.Echo/Count" => {
            let mut active = Some(active);
            let call = service_fn(move |request: Request<String>| {
                std::future::ready(count(&request.into_inner(), active.take()))
            });
            grpc.server_streaming(call, request).await
        }
        "/test.Echo/Watch" => {
            let mut active = Some(active);
            let call = service_fn(move |request: Request<String>| {
                let active = active.take();
                let first = stream::once(std::future::ready(Ok(request.into_inner())));
                let then_nothing = stream::once(async move {
                    let _counted = active;
                    std::future::pending().await
                });
                let messages: Answers = Box::pin(first.chain(then_nothing));
                std::future::ready(Ok(Response::new(messages)))
            });
            grpc.server_streaming(call, request).await
        }
        "/test.Echo/Join" => {
            let call = service_fn(move |request: Request<Streaming<String>>| {
                let _counted = &active;
                join(request.into_inner())
            });
            grpc.client_streaming(call, request).await
        }
        "/test.Echo/Chat" => {
            let mut active = Some(active);
            let call = service_fn(move |request: Request<Streaming<String>>| {
                std::future::ready(chat(request.into_inner(), active.take(), seen.clone()))
            });
            grpc.streaming(call, request).await
        }
        _ => Status::unimplemented("no such method").into_http(),
    })
}

/// Returns the status that "fail CODE" asks for, with a message, details and metadata.
fn failure(message: &str) -> Option<Status> {
    let code = message.strip_prefix("fail ")?.parse().unwrap();
    let details = bytes::Bytes::from_static(b"\x00details\xff");
    let mut status = Status::with_details(Code::from_i32(code), "100 % schlecht, täglich", details);
    status.metadata_mut().insert("x-trailer", "last words".parse().unwrap());
    Some(status)
}

async fn unary(request: Request<String>) -> Result<Response<String>, Status> {
    if let Some(status) = failure(request.get_ref()) {
        return Err(status);
    }
    let note = request.metadata().get("x-note").cloned();
    let mut response = Response::new(format!("you said {}", request.get_ref()));
    if let Some(note) = note {
        response.metadata_mut().insert("x-note-back", note);
    }
    Ok(response)
}

type Answers = std::pin::Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

/// Sends numbers as the message asks: "3" is answered with 0, 1 and 2; "3 fail 14" also ends with the status 14.
fn count(order: &str, active: Option<Active>) -> Result<Response<Answers>, Status> {
    let (number, end) = order.split_once(' ').unwrap_or((order, ""));
    let number: usize = number.parse().map_err(|_| Status::invalid_argument("not a number"))?;
    let messages = (0..number).map(|i| Ok(i.to_string())).chain(failure(end).map(Err));
    let messages = messages.collect::<Vec<_>>();
    let counted = stream::iter(messages).map(move |message| {
        let _counted = &active;
        message
    });
    Ok(Response::new(Box::pin(counted)))
}

async fn join(mut messages: Streaming<String>) -> Result<Response<String>, Status> {
    let mut all = Vec::new();
    while let Some(message) = messages.message().await? {
        all.push(message);
    }
    Ok(Response::new(all.join(",")))
}

fn chat(
    messages: Streaming<String>,
    active: Option<Active>,
    seen: Arc<Seen>,
) -> Result<Response<Answers>, Status> {
    let answers = messages.map(move |message| {
        let _counted = &active;
        seen.heard();
        let message = message?;
        failure(&message).map_or(Ok(format!("re: {message}")), Err)
    });
    Ok(Response::new(Box::pin(answers)))
}
