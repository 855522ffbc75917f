//! Checks that gRPC calls pass with their trailers, and that errors of the proxy are gRPC statuses.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ex0601::{GrpcProxy, grpc_status, is_grpc, listen};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, client, server};
use http::{HeaderMap, Request, Response};
use pingora::http::RequestHeader;
use testkit::{Client, DEADLINE, ServedProxy, dead_address, expect, serve_on};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Notify};
use tokio::time::timeout;

/// Number of calls at the same time that the upstream awaits before it answers any of them.
const TOGETHER: usize = 10;

/// Upstream that speaks only HTTP/2.
struct Upstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    moments: Arc<Moments>,
}

/// Moments that the upstream awaits.
struct Moments {
    together: Barrier,
    head_arrived: Notify,
}

impl Upstream {
    async fn start() -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let moments = Arc::new(Moments { together: Barrier::new(TOGETHER), head_arrived: Notify::new() });
        let (counter, shared) = (connections.clone(), moments.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let moments = shared.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(request, respond, moments.clone()));
                    }
                });
            }
        });
        Upstream { address, connections, moments }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    moments: Arc<Moments>,
) -> Result<(), h2::Error> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let (body, _) = read(request.into_body()).await;
    match method.as_str() {
        "Reset" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        "Together" => {
            moments.together.wait().await;
        }
        _ => {}
    }
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(body.into(), false)?;
    if method == "Break" {
        // The client must have the head before the stream breaks.
        moments.head_arrived.notified().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let status = if method == "Missing" { "5" } else { "0" };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("cost", "7".parse().unwrap());
    stream.send_trailers(trailers)
}

/// Reads a body and its trailers. The trailers are an error if the stream was reset.
async fn read(mut body: RecvStream) -> (Vec<u8>, Result<HeaderMap, String>) {
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        match part {
            Ok(part) => {
                let _ = body.flow_control().release_capacity(part.len());
                bytes.extend(part);
            }
            Err(error) => return (bytes, Err(error.to_string())),
        }
    }
    let trailers = body.trailers().await.map(Option::unwrap_or_default);
    (bytes, trailers.map_err(|error| error.to_string()))
}

fn proxy(upstream: SocketAddr) -> ServedProxy {
    serve_on(GrpcProxy { upstream }, listen)
}

/// Response to a call.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: HeaderMap,
    ends_with_head: bool,
    body: String,
    trailers: Result<HeaderMap, String>,
}

impl Answer {
    fn failed(reason: &str) -> Answer {
        let (head, body) = (HeaderMap::new(), String::new());
        Answer { status: 0, head, ends_with_head: false, body, trailers: Err(reason.to_owned()) }
    }

    fn trailer(&self, name: &str) -> &str {
        field(self.trailers.as_ref().ok(), name)
    }
}

fn field<'a>(fields: Option<&'a HeaderMap>, name: &str) -> &'a str {
    fields.and_then(|fields| fields.get(name)).map_or("", |value| value.to_str().unwrap_or("(not ASCII)"))
}

/// Makes calls of `method` at the same time, on one connection to the proxy. Returns the responses.
async fn calls(
    proxy: &ServedProxy,
    method: &str,
    media_type: &str,
    count: usize,
    head_arrived: &Notify,
) -> Vec<Answer> {
    let calling = async {
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut client, connection) = client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut waiting = Vec::new();
        for _ in 0..count {
            let request = Request::post(proxy.url(&format!("/echo.Echo/{method}")));
            let request = request.header("content-type", media_type).header("te", "trailers");
            let (answer, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from_static(b"hello"), true).unwrap();
            waiting.push(answer);
            client = client.ready().await.unwrap();
        }
        let mut answers = Vec::new();
        for answer in waiting {
            answers.push(match answer.await {
                Ok(answer) => {
                    head_arrived.notify_one();
                    let (head, body) = answer.into_parts();
                    let ends_with_head = body.is_end_stream();
                    let (body, trailers) = read(body).await;
                    let body = String::from_utf8_lossy(&body).into_owned();
                    Answer {
                        status: head.status.as_u16(),
                        head: head.headers,
                        ends_with_head,
                        body,
                        trailers,
                    }
                }
                Err(error) => Answer::failed(&error.to_string()),
            });
        }
        answers
    };
    timeout(DEADLINE, calling).await.unwrap_or_default()
}

async fn call(proxy: &ServedProxy, method: &str, media_type: &str) -> Answer {
    calls(proxy, method, media_type, 1, &Notify::new())
        .await
        .pop()
        .unwrap_or_else(|| Answer::failed("no response"))
}

#[tokio::test]
async fn calls_pass_with_their_trailers() {
    let upstream = Upstream::start().await;
    let proxy = proxy(upstream.address);
    for (method, status) in [("Say", "0"), ("Missing", "5")] {
        let answer = call(&proxy, method, "application/grpc").await;
        expect!(answer.status, 200, "the HTTP status of {method}");
        expect!(answer.body, "hello", "the body of {method}");
        expect!(answer.trailer("grpc-status"), status, "grpc-status in the trailers of {method}");
        expect!(answer.trailer("cost"), "7", "another trailer of {method}");
    }
}

#[tokio::test]
async fn calls_share_a_connection_to_the_upstream() {
    let upstream = Upstream::start().await;
    let proxy = proxy(upstream.address);
    let first = call(&proxy, "Say", "application/grpc").await;
    expect!(first.trailer("grpc-status"), "0", "grpc-status of a single call");
    let answers = calls(&proxy, "Together", "application/grpc", TOGETHER, &Notify::new()).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.trailer("grpc-status")).collect();
    expect!(statuses, ["0"; TOGETHER], "grpc-status of {TOGETHER} calls at the same time");
    let connections = upstream.connections.load(Ordering::Relaxed);
    expect!(connections, 1, "connections to the upstream, after {TOGETHER} calls at the same time");
}

#[tokio::test]
async fn a_call_without_an_upstream_gets_a_grpc_status() {
    let (dead, upstream) = (dead_address(), Upstream::start().await);
    let resets = proxy(upstream.address);
    let down = proxy(dead);
    for (what, proxy, method) in [("is down", &down, "Say"), ("resets the stream", &resets, "Reset")] {
        for media_type in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            let answer = call(proxy, method, media_type).await;
            let what = format!("{media_type}, when the upstream {what}");
            expect!(answer.status, 200, "the HTTP status of a call of {what}");
            expect!(field(Some(&answer.head), "grpc-status"), "14", "grpc-status in the head, for {what}");
            let media_type = field(Some(&answer.head), "content-type");
            expect!(media_type, contains "application/grpc", "the content type of the reply to {what}");
            expect!(answer.ends_with_head, true, "whether the stream ends with the head, for {what}");
            let message = field(Some(&answer.head), "grpc-message");
            let tells = message.contains("127.0.0.1");
            expect!(tells, false, "whether grpc-message tells the upstream's address, for {what}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_no_call_gets_an_http_status() {
    let proxy = proxy(dead_address());
    for media_type in ["application/grpc-web", "application/json", "application/grpcx"] {
        let answer = call(&proxy, "Say", media_type).await;
        expect!(answer.status, 502, "the status of a request of {media_type}, when the upstream is down");
    }
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.status, 502, "the status of a GET over HTTP/1, when the upstream is down");
    expect!(answer.header("grpc-status"), "", "grpc-status of that response");
}

#[tokio::test]
async fn a_call_that_breaks_in_its_body_ends_with_an_error() {
    let upstream = Upstream::start().await;
    let proxy = proxy(upstream.address);
    let answers = calls(&proxy, "Break", "application/grpc", 1, &upstream.moments.head_arrived).await;
    let answer = answers.into_iter().next().unwrap_or_else(|| Answer::failed("no response"));
    expect!(answer.status, 200, "the HTTP status of a call that breaks later");
    let broken = answer.trailers.is_err();
    expect!(broken, true, "whether the client sees that a begun response is broken");
}

#[test]
fn http_statuses_become_grpc_statuses() {
    for (status, expected) in [
        (400, 13),
        (401, 16),
        (403, 7),
        (404, 12),
        (429, 14),
        (502, 14),
        (503, 14),
        (504, 14),
        (500, 2),
        (418, 2),
    ] {
        expect!(grpc_status(status), expected, "the gRPC status for the HTTP status {status}");
    }
}

#[test]
fn request_without_a_content_type_is_no_call() {
    let request = RequestHeader::build("POST", b"/", None).unwrap();
    expect!(is_grpc(&request), false, "whether a request without a content type is a gRPC call");
}
