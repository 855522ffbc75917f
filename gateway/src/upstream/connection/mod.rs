//! HTTP/1 connections to backends. Pingora asks [`BackendConnector`] for each new connection, and keeps the connection
//! in its own pool between two requests. Pingora reads from a [`BackendStream`], which inspects the responses.
//!
//! The connector uses Pingora's extension point for custom protocols. If a peer has a custom ALPN, Pingora calls the
//! custom connector, which may return a plain stream of HTTP/1. Pingora itself handles HTTP/2.

pub mod head;
mod inspector;
mod proxy;
mod stream;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
pub use head::HeadLimits;
pub use inspector::MalformedResponse;
use pingora::connectors::http::Connector;
use pingora::connectors::http::custom::{self, Connection};
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::prelude::*;
use pingora::protocols::ALPN;
use pingora::protocols::tls::CustomALPN;
use pingora::upstreams::peer::Peer;
pub use proxy::http_proxy;
pub use stream::{BackendStream, ReadSize};

/// Connector of Pingora that uses [`BackendConnector`] for HTTP/1.
pub type HttpConnector = Connector<BackendConnector>;

/// Marker in place of an ALPN: [`BackendConnector`] connects to the peer, and offers only HTTP/1.1 in TLS.
static HTTP1: LazyLock<ALPN> = LazyLock::new(|| marker("http/1.1 of the gateway"));

/// Marker in place of an ALPN: [`BackendConnector`] connects to the peer, and offers HTTP/2 and HTTP/1.1 in TLS. The
/// last choice of the peer was HTTP/1.1.
static HTTP1_SO_FAR: LazyLock<ALPN> = LazyLock::new(|| marker("http/1.1 so far"));

fn marker(name: &str) -> ALPN {
    ALPN::Custom(CustomALPN::new(name.as_bytes().to_vec()))
}

/// Version of HTTP that the gateway offers to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/2 or HTTP/1.1, as the backend chooses. Its last choice was HTTP/2, or is not known.
    Either,
    /// HTTP/2 or HTTP/1.1, as the backend chooses. Its last choice was HTTP/1.1.
    EitherHttp1SoFar,
}

impl Offer {
    /// Returns the ALPN that makes Pingora use the right connector.
    pub(super) fn alpn(self) -> ALPN {
        match self {
            Offer::Http1 => HTTP1.clone(),
            Offer::Http2 => ALPN::H2,
            Offer::Either => ALPN::H2H1,
            Offer::EitherHttp1SoFar => HTTP1_SO_FAR.clone(),
        }
    }
}

/// Returns true if HTTP/1 responses from `peer` are inspected.
pub fn is_inspected(peer: &HttpPeer) -> bool {
    matches!(peer.options.alpn, ALPN::Custom(_))
}

/// Source of the limits of a response's head, which may change while a connection is open.
#[derive(Clone)]
pub struct ResponseLimits(Arc<dyn Fn() -> HeadLimits + Send + Sync>);

impl ResponseLimits {
    /// Returns a source that calls `now` for the current limits.
    pub fn new(now: impl Fn() -> HeadLimits + Send + Sync + 'static) -> Self {
        ResponseLimits(Arc::new(now))
    }

    fn now(&self) -> HeadLimits {
        (self.0)()
    }
}

impl fmt::Debug for ResponseLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseLimits")
    }
}

/// Connector for HTTP/1 connections to backends.
#[derive(Clone)]
pub struct BackendConnector {
    transport: Arc<TransportConnector>,
    limits: ResponseLimits,
}

impl BackendConnector {
    /// Returns a connector whose connections apply `limits` to the heads of responses.
    pub fn new(limits: ResponseLimits) -> Self {
        BackendConnector { transport: Arc::new(TransportConnector::new(None)), limits }
    }

    /// Returns a connector of Pingora that uses this one. Its pool is separate from that for clients' requests.
    pub fn http(&self) -> HttpConnector {
        Connector::new_custom(Some(ConnectorOptions::new(POOL_SIZE)), self.clone())
    }

    /// Connects to `peer`, with TLS if the peer has it.
    ///
    /// # Errors
    /// Returns the errors of Pingora, and [`SPEAKS_HTTP2`] if the backend chose HTTP/2.
    pub async fn connect(&self, peer: &HttpPeer) -> Result<BackendStream> {
        let mut peer = peer.clone();
        peer.options.alpn = if peer.options.alpn == *HTTP1_SO_FAR { ALPN::H2H1 } else { ALPN::H1 };
        let stream = self.transport.new_stream(&peer).await?;
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return Error::e_explain(SPEAKS_HTTP2, "the backend now speaks HTTP/2");
        }
        Ok(BackendStream::new(stream, self.limits.clone()))
    }
}

/// Maximum number of idle connections in the pool for requests that the gateway makes itself.
const POOL_SIZE: usize = 128;

/// Error about a backend that chose HTTP/2, although it chose HTTP/1.1 before.
pub const SPEAKS_HTTP2: ErrorType = ErrorType::new("BackendSpeaksHttp2");

#[async_trait]
impl custom::Connector for BackendConnector {
    type Session = ();

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<()>, bool)> {
        let Some(peer) = (peer as &dyn Any).downcast_ref::<HttpPeer>() else {
            return Error::e_explain(InternalError, "a peer that is no HttpPeer came to the connector");
        };
        Ok((Connection::Stream(Box::new(self.connect(peer).await?)), false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _peer: &P) -> Option<()> {
        // Idle connections are in Pingora's own pool, not here.
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        _session: (),
        _peer: &P,
        _idle_timeout: Option<Duration>,
    ) {
    }
}
