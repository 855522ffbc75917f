//! Small HTTP client for tests. It keeps connections alive, follows no redirects, and gives up after
//! [`DEADLINE`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_openssl::client::legacy::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::DEADLINE;
use crate::tls::Authority;

/// HTTP client with a pool of connections, which its clones share.
#[derive(Clone)]
pub struct Client {
    inner: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Complete response, including its body.
#[derive(Debug)]
pub struct Response {
    /// Status of the final response.
    pub status: StatusCode,
    /// Header fields of the response.
    pub headers: HeaderMap,
    /// Complete body of the response.
    pub body: Bytes,
}

impl Response {
    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON. Fails the test if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {}", self.text()),
        }
    }

    /// Returns the value of a header field, or "" if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not ASCII)"))
    }
}

impl Default for Client {
    fn default() -> Self {
        Client::new()
    }
}

impl Client {
    /// Creates a client with an empty pool that trusts no server over TLS.
    pub fn new() -> Self {
        Client::with_trust(|_| Ok(()))
    }

    /// Creates a client that trusts servers whose certificate was issued by `authority`.
    pub fn trusting(authority: &Authority) -> Self {
        Client::with_trust(|tls| tls.cert_store_mut().add_cert(authority.certificate()))
    }

    fn with_trust(trust: impl FnOnce(&mut SslConnectorBuilder) -> Result<(), ErrorStack>) -> Self {
        let build = || {
            let mut tls = SslConnector::builder(SslMethod::tls_client())?;
            trust(&mut tls)?;
            let mut http = HttpConnector::new();
            http.enforce_http(false);
            HttpsConnector::with_connector(http, tls)
        };
        let connector = build().unwrap_or_else(|error| panic!("cannot create a TLS client: {error}"));
        Client { inner: hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// Sends a GET request for `url` and returns the whole response.
    pub async fn get(&self, url: impl AsRef<str>) -> Response {
        let request = Request::get(url.as_ref()).body(Bytes::new());
        self.expect(request).await
    }

    /// Sends a POST request with `body` to `url` and returns the whole response.
    pub async fn post(&self, url: impl AsRef<str>, body: impl Into<Bytes>) -> Response {
        let request = Request::post(url.as_ref()).body(body.into());
        self.expect(request).await
    }

    /// Sends a GET request for `url` and returns the status of the response.
    ///
    /// # Errors
    /// Returns the errors of [`Client::try_send`].
    pub async fn status(&self, url: impl AsRef<str>) -> Result<u16, String> {
        let request = Request::get(url.as_ref()).body(Bytes::new()).map_err(|error| error.to_string())?;
        Ok(self.try_send(request).await?.status.as_u16())
    }

    /// Sends a request and returns the response. Fails the test if there is no complete response.
    pub async fn send(&self, request: Request<Bytes>) -> Response {
        self.expect(Ok(request)).await
    }

    /// Sends a request and returns the response, which must be complete within [`DEADLINE`].
    ///
    /// # Errors
    /// Returns the error as text if the connection, the protocol or the body fails, or the deadline passes.
    pub async fn try_send(&self, request: Request<Bytes>) -> Result<Response, String> {
        let exchange = async {
            let response = self.inner.request(request.map(Full::new)).await.map_err(|e| chain(&e))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| format!("body: {}", chain(&e)))?.to_bytes();
            Ok(Response { status: head.status, headers: head.headers, body })
        };
        match timeout(DEADLINE, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no complete response within {DEADLINE:?}")),
        }
    }

    async fn expect(&self, request: http::Result<Request<Bytes>>) -> Response {
        let request = request.unwrap_or_else(|error| panic!("invalid request in the test: {error}"));
        let what = format!("{} {}", request.method(), request.uri());
        match self.try_send(request).await {
            Ok(response) => response,
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// Sends raw bytes on a new connection and returns all received bytes. Reading ends when the server closes
/// the connection, or after [`DEADLINE`]. It is meant for requests that no well-behaved client sends.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    exchange_from(IpAddr::V4(Ipv4Addr::LOCALHOST), address, bytes).await
}

/// Does the same as [`exchange`] from the address `source`, which must be on loopback.
pub async fn exchange_from(source: IpAddr, address: SocketAddr, bytes: &[u8]) -> String {
    // Errors are part of the result: a reset ends the response in the same way as a close.
    exchange_over(connect(source, address).await, bytes).await
}

/// Sends several requests on one connection, each after the whole response to the previous one. Returns all
/// received bytes. The last request must ask the server to close the connection.
pub async fn converse(address: SocketAddr, requests: &[&str]) -> String {
    let mut stream = connect(IpAddr::V4(Ipv4Addr::LOCALHOST), address).await;
    let mut answers = String::new();
    for (i, request) in requests.iter().enumerate() {
        let _ = stream.write_all(request.as_bytes()).await;
        if i + 1 < requests.len() {
            answers.push_str(&one_answer(&mut stream).await);
        }
    }
    answers + &rest(stream).await
}

async fn connect(source: IpAddr, address: SocketAddr) -> TcpStream {
    let connecting = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        socket.connect(address).await
    };
    match connecting.await {
        Ok(stream) => stream,
        Err(error) => panic!("cannot connect from {source} to {address}: {error}"),
    }
}

/// Does the same as [`exchange`] on an open connection.
pub async fn exchange_over(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes).await;
    rest(stream).await
}

async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads a response head, and as many bytes of body as its Content-Length says.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    let reading = async {
        let mut missing = None;
        while missing != Some(0) && stream.read_exact(&mut byte).await.is_ok() {
            answer.push(byte[0]);
            match &mut missing {
                Some(missing) => *missing -= 1,
                None if answer.ends_with(b"\r\n\r\n") => missing = Some(content_length(&answer)),
                None => {}
            }
        }
    };
    let _ = timeout(DEADLINE, reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Returns an error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many errors repeat the text of their cause.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
