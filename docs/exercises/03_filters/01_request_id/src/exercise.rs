//! # Request id
//!
//! If the client, the proxy and the upstream use the same id for a request, the request can be followed
//! through all three logs. The phases of a request share a value, its context: `new_ctx` makes it, and every
//! later phase gets it.
//!
//! **Your task**: send the id in the context to the upstream and to the client, in a header field
//! `X-Request-Id`. A client can send a field with this name too. Do not believe it: replace it.

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
        _request: &mut RequestHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        // TODO: send the id to the upstream. (Drop the underscore from the names that you use.)
        Ok(())
    }

    /// Changes the response on its way to the client. `response` is the head that the client will get.
    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        // TODO: send the same id to the client.
        Ok(())
    }
}
