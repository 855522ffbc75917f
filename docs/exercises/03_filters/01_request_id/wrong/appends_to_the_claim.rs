//! Wrong: appends its id to the one that the client sends, and most programs read the first.
//! Caught: "how many X-Request-Id fields the upstream got"

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
        request.append_header("X-Request-Id", &ctx.id).map(drop)
    }

    /// Changes the response on its way to the client. `response` is the head that the client will get.
    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        response.insert_header("X-Request-Id", &ctx.id)
    }
}
