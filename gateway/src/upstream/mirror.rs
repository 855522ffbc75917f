//! Mirroring: a copy of a request is sent to another pool, and the response is dropped. A background task sends the
//! copy after the whole request has been sent. So the copy cannot delay the response to the client or make it fail.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::http::RequestHeader;
use pingora::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::connection::HttpConnector;
use super::{PeerOptions, PeerSettings, Pool, Pooling, Selection};
use crate::telemetry::handles::MirrorMetrics;
use crate::upstream::subrequest::call;

/// Maximum size of a body that is copied, in bytes. A request with a larger body is not mirrored.
const MAX_BODY: usize = 64 * 1024;

/// Maximum number of copies in flight. Further copies are dropped, because a slow mirror must not fill the memory.
const MAX_INFLIGHT: usize = 256;

/// Destination to which the requests of a route are copied.
pub struct Mirror {
    /// Tag of the mirror's pool.
    pub tag: String,
    /// Backends that get the copies.
    pub pool: Arc<Pool>,
    /// Settings of the connections to these backends.
    pub peers: Arc<PeerSettings>,
}

/// Copy of a request. Its body is added while the request is forwarded.
pub struct MirrorCopy {
    request: RequestHeader,
    /// Body so far; `None` once it is larger than [`MAX_BODY`].
    body: Option<BytesMut>,
}

impl MirrorCopy {
    /// Returns a copy with an empty body and the head of `request`, which is the head that a backend gets.
    pub fn new(request: &RequestHeader) -> Self {
        MirrorCopy { request: request.clone(), body: Some(BytesMut::new()) }
    }

    /// Adds a part of the body.
    pub fn add(&mut self, part: &Bytes) {
        self.body = self.body.take().filter(|body| body.len() + part.len() <= MAX_BODY);
        if let Some(body) = &mut self.body {
            body.extend_from_slice(part);
        }
    }
}

/// Sender of the copies for all mirrors.
pub struct Mirrors {
    connector: Arc<HttpConnector>,
    room: Arc<Semaphore>,
}

impl Mirrors {
    /// Returns a sender without copies in flight. `connector` makes its connections, which no client's request uses.
    pub fn new(connector: Arc<HttpConnector>) -> Self {
        Mirrors { connector, room: Arc::new(Semaphore::new(MAX_INFLIGHT)) }
    }

    /// Sends `copy` to `mirror` in the background, for at most `limit`. Unlike a client's request, the copy counts
    /// neither as in flight nor for a circuit, because the backends may also serve clients.
    pub fn send(&self, copy: MirrorCopy, mirror: &Mirror, limit: Duration, metrics: &MirrorMetrics) {
        let wanted = Selection {
            key: b"",
            sticky_id: None,
            limit: mirror.peers.max_inflight(),
            respects_circuits: true,
        };
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

/// Returns the request with a Content-Length instead of its earlier framing, because the body is complete now.
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
    fn mirror_copy_has_length_and_bounded_body() {
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
