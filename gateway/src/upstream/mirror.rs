//! Mirroring: a copy of a request goes to another pool, and what comes back is dropped. The copy is sent by a
//! task of its own when the request has been sent whole, so it can neither slow nor fail the real answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::http::RequestHeader;
use pingora::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::connection::{BackendConnector, HttpConnector};
use super::{PeerOptions, PeerSettings, Pool, Pooling, Selection};
use crate::telemetry::handles::MirrorMetrics;
use crate::upstream::subrequest::call;

/// The most of a body that is copied. A request with more is not mirrored.
const MAX_BODY: usize = 64 * 1024;

/// Copies under way. More are dropped: what backs up behind a slow mirror must not fill the memory.
const MAX_INFLIGHT: usize = 256;

/// Where copies of a route's requests go.
pub struct Mirror {
    /// Their tag.
    pub tag: String,
    /// The backends that get them.
    pub pool: Arc<Pool>,
    /// How these are spoken to.
    pub peers: Arc<PeerSettings>,
}

/// A copy of a request, whose body is still passing by.
pub struct MirrorCopy {
    request: RequestHeader,
    /// `None`: there is more than is copied.
    body: Option<BytesMut>,
}

impl MirrorCopy {
    /// A copy of the request's head, as a backend gets it.
    pub fn new(request: &RequestHeader) -> Self {
        MirrorCopy { request: request.clone(), body: Some(BytesMut::new()) }
    }

    /// Takes a part of the body in.
    pub fn add(&mut self, part: &Bytes) {
        self.body = self.body.take().filter(|body| body.len() + part.len() <= MAX_BODY);
        if let Some(body) = &mut self.body {
            body.extend_from_slice(part);
        }
    }
}

/// Sends copies.
pub struct Mirrors {
    connector: Arc<HttpConnector>,
    room: Arc<Semaphore>,
}

impl Mirrors {
    /// None are under way; they will be sent over connections of their own, made by `connector`.
    pub fn new(connector: &BackendConnector) -> Self {
        Mirrors { connector: Arc::new(connector.http()), room: Arc::new(Semaphore::new(MAX_INFLIGHT)) }
    }

    /// Sends `copy` to `mirror`, in the background, for at most `limit`. It counts nowhere as a client's request
    /// would: neither as in flight nor for a circuit, in case the backends serve clients too.
    pub fn send(&self, copy: MirrorCopy, mirror: &Mirror, limit: Duration, metrics: &MirrorMetrics) {
        let wanted =
            Selection { key: b"", known: None, limit: mirror.peers.max_inflight(), heeds_circuits: true };
        let (Some(body), Ok(permit)) = (copy.body, self.room.clone().try_acquire_owned()) else {
            return metrics.dropped.inc();
        };
        let occasion = PeerOptions {
            left: limit,
            timed: false,
            pooling: Pooling::Shared,
            is_stream: false,
            is_inspected: false,
        };
        let backend = mirror.pool.take_turn(&wanted);
        let peer = backend.and_then(|backend| mirror.peers.peer(backend, occasion).ok());
        let Some(peer) = peer else { return metrics.dropped.inc() };
        let (metrics, connector) = (metrics.clone(), self.connector.clone());
        tokio::spawn(async move {
            let sent = async { call(&connector, &peer, framed(copy.request, &body)?, body.freeze()).await };
            let answered = match timeout(limit, sent).await {
                Ok(Ok(answer)) => !answer.status.is_server_error(),
                Ok(Err(error)) => {
                    debug!(%peer, %error, "a mirrored request has failed");
                    false
                }
                Err(_) => false,
            };
            if answered {
                metrics.answered.inc()
            } else {
                metrics.failed.inc()
            }
            drop(permit);
        });
    }
}

/// The request with a length in place of whatever framed its body: that is whole now.
fn framed(mut request: RequestHeader, body: &[u8]) -> Result<RequestHeader> {
    request.remove_header(&header::TRANSFER_ENCODING);
    request.remove_header(&header::EXPECT);
    if !body.is_empty() || request.headers.contains_key(header::CONTENT_LENGTH) {
        request.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_a_length_and_not_too_much_body() {
        let mut request = RequestHeader::build("PUT", b"/a", None).unwrap();
        request.insert_header("Transfer-Encoding", "chunked").unwrap();
        let mut copy = MirrorCopy::new(&request);
        copy.add(&Bytes::from_static(b"ab"));
        copy.add(&Bytes::from_static(b"c"));
        let body = copy.body.take().unwrap();
        let framed = framed(copy.request, &body).unwrap();
        assert_eq!((&body[..], &framed.headers["content-length"]), (&b"abc"[..], &"3".parse().unwrap()));
        assert!(!framed.headers.contains_key("transfer-encoding"));

        let mut large = MirrorCopy::new(&request);
        large.add(&Bytes::from(vec![0; MAX_BODY]));
        assert!(large.body.is_some());
        large.add(&Bytes::from_static(b"x"));
        assert!(large.body.is_none());
        large.add(&Bytes::from_static(b"x"));
        assert!(large.body.is_none(), "it does not begin again");
    }
}
