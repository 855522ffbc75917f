//! Connections to backends over HTTP/1: Pingora asks [`BackendConnector`] for each new one, keeps it in its own pool
//! between two requests, and reads from a [`BackendStream`] on which responses are inspected.
//!
//! Pingora has this door for protocols of one's own: a peer whose ALPN is a custom one is connected to by the custom
//! connector, which may hand out a plain stream of HTTP/1. HTTP/2 stays with Pingora.

pub mod head;
mod inspector;
mod proxy;
mod stream;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::http::Connector;
use pingora::connectors::http::custom::{self, Connection};
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::prelude::*;
use pingora::protocols::ALPN;
use pingora::protocols::tls::CustomALPN;
use pingora::upstreams::peer::Peer;

pub use head::HeadLimits;
pub use inspector::MalformedResponse;
pub use proxy::http_proxy;
pub use stream::{BackendStream, ReadSize};

/// A connector of Pingora's that uses [`BackendConnector`] for HTTP/1.
pub type HttpConnector = Connector<BackendConnector>;

/// ALPN of a peer that [`BackendConnector`] is to connect to, and offers HTTP/1.1 alone in TLS.
static HTTP1: LazyLock<ALPN> = LazyLock::new(|| marker("http/1.1 of the gateway"));

/// ALPN of a peer that [`BackendConnector`] is to connect to, which spoke HTTP/1.1 the last time and is offered HTTP/2 too.
static HTTP1_SO_FAR: LazyLock<ALPN> = LazyLock::new(|| marker("http/1.1 so far"));

fn marker(name: &str) -> ALPN {
    ALPN::Custom(CustomALPN::new(name.as_bytes().to_vec()))
}

/// Version of HTTP that a peer is connected to for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/2 or HTTP/1.1, as the backend likes; it is not known, or was HTTP/2 the last time.
    Either,
    /// The same, and it was HTTP/1.1 the last time.
    EitherHttp1SoFar,
}

impl Offer {
    /// Returns the ALPN by which Pingora finds the right connector.
    pub(super) fn alpn(self) -> ALPN {
        match self {
            Offer::Http1 => HTTP1.clone(),
            Offer::Http2 => ALPN::H2,
            Offer::Either => ALPN::H2H1,
            Offer::EitherHttp1SoFar => HTTP1_SO_FAR.clone(),
        }
    }
}

/// Returns true where responses over HTTP/1 from `peer` are inspected.
pub fn is_inspected(peer: &HttpPeer) -> bool {
    matches!(peer.options.alpn, ALPN::Custom(_))
}

/// Source of the bounds of a response's head, which may change while a connection is open.
#[derive(Clone)]
pub struct ResponseLimits(Arc<dyn Fn() -> HeadLimits + Send + Sync>);

impl ResponseLimits {
    /// Returns a source that asks `now`.
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

/// Connector to backends over HTTP/1.
#[derive(Clone)]
pub struct BackendConnector {
    transport: Arc<TransportConnector>,
    limits: ResponseLimits,
}

impl BackendConnector {
    /// Returns a connector whose connections hold response heads to `limits`.
    pub fn new(limits: ResponseLimits) -> Self {
        BackendConnector { transport: Arc::new(TransportConnector::new(None)), limits }
    }

    /// Returns a connector of Pingora's that uses this one, with a pool of its own.
    pub fn http(&self) -> HttpConnector {
        Connector::new_custom(Some(ConnectorOptions::new(POOL_SIZE)), self.clone())
    }

    /// Connects to `peer`, with TLS where it has that.
    ///
    /// # Errors
    /// Those of Pingora, and [`SPEAKS_HTTP2`] where the backend chose HTTP/2.
    pub async fn connect(&self, peer: &HttpPeer) -> Result<BackendStream> {
        let mut peer = peer.clone();
        peer.options.alpn = if peer.options.alpn == *HTTP1_SO_FAR { ALPN::H2H1 } else { ALPN::H1 };
        let stream = self.transport.new_stream(&peer).await?;
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return Error::e_explain(SPEAKS_HTTP2, "the backend has come to speak HTTP/2");
        }
        Ok(BackendStream::new(stream, self.limits.clone()))
    }
}

/// Connections that are kept by a connector for requests of the gateway's own.
const POOL_SIZE: usize = 128;

/// The error of a backend that chose HTTP/2, having spoken HTTP/1 before.
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
        // Pingora's own pool has them.
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
