//! Wrong: HTTP/1 is allowed too, and without TLS Pingora then chooses it, so the upstream does not
//! understand a word.
//! Caught: "the body of Say"

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use pingora::ErrorSource;
use pingora::apps::HttpServerOptions;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use pingora::protocols::http::HttpTask;
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
    let media_type = request.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let rest = media_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Returns the gRPC status for the HTTP status of a local reply.
pub fn grpc_status(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
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
fn trailers_only(status: u16) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build(200, None)?;
    response.insert_header(CONTENT_TYPE, "application/grpc")?;
    response.insert_header("grpc-status", grpc_status(status).to_string())?;
    // The error itself names addresses, which are not for clients. It is in the log.
    response.insert_header("grpc-message", format!("local reply {status}"))?;
    Ok(response)
}

#[async_trait]
impl ProxyHttp for GrpcProxy {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = peer(self.upstream);
        peer.options.set_http_version(2, 1);
        peer.options.max_h2_streams = STREAMS;
        Ok(peer)
    }

    /// Writes the error response that the client gets if no upstream has answered.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut ()) -> FailToProxy {
        let Some(status) = http_status(error) else {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        // If a write fails, the client has left, and cannot be told about the error.
        if !is_grpc(session.req_header()) {
            let _ = session.write_error_response(gen_error_response(status), Bytes::new()).await;
        } else if session.response_written().is_none()
            && let Ok(response) = trailers_only(status)
        {
            // Over HTTP/2, `write_response_header` does not end the stream, whatever its second argument says.
            let _ = session.write_response_tasks(vec![HttpTask::Header(Box::new(response), true)]).await;
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }
}
