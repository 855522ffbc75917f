//! Failover: a request that failed tries one other upstream, if it may.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

/// Forwards every request to the first of its upstreams that answers, and tries two of them at most.
pub struct Failover {
    /// Where to, in this order.
    pub upstreams: Vec<SocketAddr>,
}

/// What is remembered about one request.
pub struct RequestCtx {
    /// How many upstreams it has tried, the present one included.
    tries: usize,
}

/// How many upstreams a request may try.
const MOST: usize = 2;

#[async_trait]
impl ProxyHttp for Failover {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { tries: 0 }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let Some(upstream) = self.upstreams.get(ctx.tries) else {
            return Error::e_explain(HTTPStatus(503), "there is no other upstream");
        };
        ctx.tries += 1;
        Ok(Box::new(HttpPeer::new(*upstream, false, String::new())))
    }

    /// The connection could not be made.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(ctx.tries < MOST);
        error
    }

    /// The connection broke, or what came over it was not HTTP.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestCtx,
        _reused: bool,
    ) -> Box<Error> {
        let again = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        error.set_retry(again && ctx.tries < MOST);
        error
    }
}
