//! # Request id
//!
//! A request that carries one id at the client, at the proxy and at the upstream can be followed through all
//! three logs. The phases of a request share a value, its context: `new_ctx` makes it, and every later phase
//! gets it.
//!
//! **Your task**: send the context's id to the upstream and to the client, in a header field `X-Request-Id`.
//! What a client sends under that name is not to be believed.

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
        _request: &mut RequestHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        // TODO: the id goes up. (Drop the underscore from the names that you use.)
        Ok(())
    }

    /// On its way down: `response` is what the client will get.
    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        // TODO: the same id comes down.
        Ok(())
    }
}
