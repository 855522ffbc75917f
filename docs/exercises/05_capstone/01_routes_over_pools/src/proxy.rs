//! Life of a request, phase by phase, in the order in which Pingora runs the phases.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::prelude::*;

use crate::connection;
use crate::live::Live;
use crate::route::Snapshot;

/// Gateway: the implementation of Pingora's proxy trait.
pub struct Gateway {
    live: Arc<Live>,
}

/// State of one request, which its phases share.
pub struct RequestCtx {
    /// Configuration that applies to the request until its end.
    snapshot: Arc<Snapshot>,
}

impl Gateway {
    /// Returns a gateway with the configuration that `live` holds.
    pub fn new(live: Arc<Live>) -> Gateway {
        Gateway { live }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { snapshot: self.live.load() }
    }

    /// Prepares the client's connection. Returns true if it has replied itself, which it never does yet.
    async fn request_filter(&self, session: &mut Session, _ctx: &mut RequestCtx) -> Result<bool> {
        connection::settle(session);
        Ok(false)
    }

    /// Returns the peer for the request.
    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let route = ctx.snapshot.find(session.req_header().uri.path());
        let route = route.or_err(HTTPStatus(404), "no route matches")?;
        let backend = route.pool.next().or_err(HTTPStatus(503), "the pool is empty")?;
        Ok(connection::peer(backend.address))
    }

    /// Prepares the request for the backend, right before it is sent.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        connection::forward(session, request)
    }
}
