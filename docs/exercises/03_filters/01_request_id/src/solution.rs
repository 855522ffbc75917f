//! Request id: one request, one id, at the client and at the upstream.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use uuid::Uuid;

/// Forwards every request to one upstream, and gives it an id.
pub struct RequestId {
    /// Where to.
    pub upstream: SocketAddr,
}

/// What is remembered about one request.
pub struct RequestCtx {
    /// Its id: unlike that of any other request, and ordered by time.
    pub id: String,
}

#[async_trait]
impl ProxyHttp for RequestId {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { id: Uuid::now_v7().to_string() }
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    /// On its way up: `request` is what the upstream will get.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        request.insert_header("X-Request-Id", &ctx.id)
    }

    /// On its way down: `response` is what the client will get.
    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        response.insert_header("X-Request-Id", &ctx.id)
    }
}
