//! Wrong: does not send the id to the client, so a user cannot quote it to the support.
//! Caught: "the X-Request-Id that the client got"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use uuid::Uuid;

use crate::peer::peer;

/// Proxy that gives every request an id, and forwards it to one upstream.
pub struct RequestId {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

/// State of one request, which its phases share.
pub struct RequestCtx {
    /// Unique id of the request. Ids are ordered by time.
    pub id: String,
}

#[async_trait]
impl ProxyHttp for RequestId {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { id: Uuid::now_v7().to_string() }
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    /// Changes the request on its way to the upstream. `request` is the head that the upstream will get.
    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        request.insert_header("X-Request-Id", &ctx.id)
    }

    /// Changes the response on its way to the client. `response` is the head that the client will get.
    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        Ok(())
    }
}
