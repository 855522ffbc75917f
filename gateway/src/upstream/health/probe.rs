//! A single probe: a TCP connection, a GET, or a call of gRPC's health service. The connection has the same settings
//! as for requests of clients.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::http::RequestHeader;
use pingora::prelude::*;
use pingora::upstreams::peer::HttpPeer;

use crate::config::{HealthCheck, ProbeKind, StatusSet};
use crate::upstream::certificate::{check_address, why_refused};
use crate::upstream::connection::HttpConnector;
use crate::upstream::subrequest::call;
use crate::upstream::{BackendState, PeerOptions, PeerSettings, Pooling};

/// Method by which gRPC servers report their health
/// (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Message `HealthCheckRequest` for the whole server: not compressed, 0 bytes long.
const GRPC_REQUEST: &[u8] = &[0, 0, 0, 0, 0];

/// Probe of one backend.
pub(super) struct Probe {
    peer: Result<Box<HttpPeer>>,
    question: Question,
}

enum Question {
    /// The backend must accept a connection.
    Tcp,
    /// The backend must answer with one of these statuses.
    Http(Result<RequestHeader>, StatusSet),
    /// The backend must report that it is serving.
    Grpc(Result<RequestHeader>),
}

impl Probe {
    pub(super) fn new(config: &HealthCheck, backend: &BackendState, peers: &PeerSettings) -> Self {
        let limit = config.timeout_secs.duration();
        // Each probe uses a new connection, to find out whether the backend accepts one.
        let occasion = PeerOptions {
            left: limit,
            timed: false,
            pooling: Pooling::Fresh,
            is_stream: false,
            is_inspected: false,
        };
        let host = if config.host.is_empty() { backend.authority() } else { config.host.clone() };
        let host = host.as_str();
        let question = match config.probe_kind() {
            ProbeKind::Tcp => Question::Tcp,
            ProbeKind::Http => {
                let request = request(Method::GET, config.http_path(), host);
                Question::Http(request, config.passing_status())
            }
            ProbeKind::Grpc => Question::Grpc(request(Method::POST, GRPC_HEALTH, host).and_then(grpc)),
        };
        Probe { peer: peers.peer(backend, occasion), question }
    }

    /// Sends the probe, and checks the response.
    ///
    /// # Errors
    /// Returns the reason in words if the probe has failed.
    pub(super) async fn send(&self, connector: &HttpConnector) -> std::result::Result<(), String> {
        let peer = self.peer.as_ref().map_err(|error| error.to_string())?;
        let (request, body) = match &self.question {
            Question::Tcp => {
                let connected = connector.get_http_session(peer.as_ref()).await;
                let checked = connected.and_then(|(session, _)| check_address(session.digest(), peer));
                return explained(checked, peer).await;
            }
            Question::Http(request, _) => (request, Bytes::new()),
            Question::Grpc(request) => (request, Bytes::from_static(GRPC_REQUEST)),
        };
        let request = request.as_ref().map_err(|error| error.to_string())?.clone();
        let answer = explained(call(connector, peer, request, body).await, peer).await?;
        match &self.question {
            Question::Http(_, expected) if !expected.contains(answer.status.as_u16()) => {
                Err(format!("the probe was answered with {}", answer.status.as_u16()))
            }
            Question::Grpc(_) if answer.status != StatusCode::OK || !is_serving(&answer.body) => {
                Err("the gRPC health service does not say SERVING".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Returns true if `body` is a `HealthCheckResponse` that says SERVING: not compressed, four bytes of length, and
/// field 1 is the number 1.
fn is_serving(body: &[u8]) -> bool {
    matches!(body, [0, _, _, _, _, 8, 1, ..])
}

fn request(method: Method, path: &str, host: &str) -> Result<RequestHeader> {
    let mut request = RequestHeader::build(method, path.as_bytes(), Some(4))?;
    request.insert_header(header::HOST, host)?;
    request.insert_header(header::USER_AGENT, "pingora-gateway health check")?;
    Ok(request)
}

/// Converts an error to words. If a certificate was refused, another handshake is made to find out why.
async fn explained<T>(outcome: Result<T>, peer: &HttpPeer) -> std::result::Result<T, String> {
    let error = match outcome {
        Ok(fine) => return Ok(fine),
        Err(error) => error,
    };
    let context = error.context.as_ref().map(|context| context.as_str()).unwrap_or_default();
    Err(match *error.etype() {
        InvalidCert => {
            let reason = why_refused(peer).await;
            format!("InvalidCert: {}", reason.as_deref().unwrap_or(context))
        }
        ref kind => format!("{}: {}", kind.as_str(), error.root_cause()),
    })
}

fn grpc(mut request: RequestHeader) -> Result<RequestHeader> {
    request.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    request.insert_header(header::TE, "trailers")?;
    Ok(request)
}
