//! # HTTP/2 and gRPC
//!
//! A gRPC call is a POST over HTTP/2. Its result, `grpc-status`, stands in the *trailers*: fields after the body. The
//! HTTP status is 200 for every call, whether it succeeds or not. Pingora passes trailers on if both sides speak
//! HTTP/2. Over TLS, both ends agree on HTTP/2 in the handshake (ALPN). Without TLS (h2c), the proxy must know it.
//! Many calls share one connection, as *streams*. Pingora's default is one stream for each connection.
//!
//! If the upstream is down, Pingora answers 502, and a gRPC client reports a confusing error, because it looks for
//! `grpc-status`. A *Trailers-Only* response tells it: status 200, content type `application/grpc`, `grpc-status`
//! and `grpc-message` in the head, and the stream ends with this head. After the head of a response has been sent,
//! there is no way to send another. Then Pingora resets the stream, and the client knows that the call has failed.
//!
//! | HTTP status | 400 | 401 | 403 | 404 | 429, 502, 503, 504 | others |
//! |---|---|---|---|---|---|---|
//! | gRPC status | 13 | 16 | 7 | 12 | 14 | 2 |
//!
//! **Your task**: speak HTTP/2 to the upstream, with up to `STREAMS` streams on a connection, and give gRPC calls
//! a Trailers-Only response if the proxy fails. Their content type is `application/grpc`, alone or with `+proto` or
//! parameters after it. All other requests get the usual error response. No response tells clients an address.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use pingora::ErrorSource;
use pingora::apps::HttpServerOptions;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use pingora::protocols::http::error_resp::gen_error_response;
use pingora::proxy::{FailToProxy, HttpProxy};
use pingora::services::listening::Service;

use crate::peer::peer;

/// Maximum number of calls that share a connection to the upstream.
pub const STREAMS: usize = 100;

/// Proxy that forwards every request to one upstream, which speaks only HTTP/2, without TLS (h2c).
pub struct GrpcProxy {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

/// Lets `service` listen on `address` for HTTP/1 and for HTTP/2 without TLS.
///
/// This is for clients inside a network that you trust, because Pingora waits for a connection's first bytes
/// without a limit. Clients from outside get TLS, and `TlsSettings::enable_h2` offers HTTP/2 to them.
pub fn listen(service: &mut Service<HttpProxy<GrpcProxy>>, address: &str) {
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    if let Some(app) = service.app_logic_mut() {
        app.server_options = Some(options);
    }
    service.add_tcp(address);
}

/// Returns true if the request is a gRPC call.
pub fn is_grpc(request: &RequestHeader) -> bool {
    // TODO: the content type is application/grpc, application/grpc+… or application/grpc;…
    request.headers.get(CONTENT_TYPE).is_some_and(|value| value.is_empty())
}

/// Returns the gRPC status for the HTTP status of a local reply.
pub fn grpc_status(status: u16) -> u16 {
    // TODO: see the table above.
    status
}

/// Returns the HTTP status that tells about an error; `None` if the client has left.
pub fn http_status(error: &Error) -> Option<u16> {
    match (error.etype(), error.esource()) {
        (HTTPStatus(status), _) => Some(*status),
        (_, ErrorSource::Upstream) => Some(502),
        (WriteError | ReadError | ConnectionClosed, ErrorSource::Downstream) => None,
        (_, ErrorSource::Downstream) => Some(400),
        _ => Some(500),
    }
}

/// Returns the head of a response that is only a gRPC status ("Trailers-Only").
pub fn trailers_only(_status: u16) -> Result<ResponseHeader> {
    // TODO: the content type, grpc-status and grpc-message.
    ResponseHeader::build(501, None)
}

#[async_trait]
impl ProxyHttp for GrpcProxy {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        // TODO: speak HTTP/2, with several streams on a connection.
        let peer = peer(self.upstream);
        Ok(peer)
    }

    /// Writes the error response that the client gets if no upstream has answered.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut ()) -> FailToProxy {
        let Some(status) = http_status(error) else {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        // TODO: a gRPC call gets `trailers_only(status)`, if no response has begun. The stream ends with its head:
        // over HTTP/2, only `write_response_tasks` can do that (with `HttpTask` of `pingora::protocols::http`).
        // If the write fails, the client has left, and cannot be told about the error.
        let _ = session.write_error_response(gen_error_response(status), Bytes::new()).await;
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }
}
