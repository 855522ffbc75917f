//! Wrong: compares with <= and so tries three upstreams.
//! Caught: "how often each upstream was tried"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;

use crate::peer::peer;

/// Proxy that forwards every request to the first upstream that answers, and tries two upstreams at most.
pub struct Failover {
    /// Addresses of the upstreams, in the order in which they are tried.
    pub upstreams: Vec<SocketAddr>,
}

/// State of one request, which its phases share.
pub struct RequestCtx {
    /// Number of upstreams that the request has tried, including the current one.
    tries: usize,
}

/// Maximum number of upstreams that a request may try.
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
        Ok(peer(*upstream))
    }

    /// Decides about a retry after the connection could not be made.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(ctx.tries <= MOST);
        error
    }

    /// Decides about a retry after the connection broke, or after the upstream sent bytes that are not HTTP.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestCtx,
        _reused: bool,
    ) -> Box<Error> {
        // Without these two, the client could get parts of two responses, or an upstream a part of a request.
        let response_not_begun = session.response_written().is_none();
        let by_upstream = *error.esource() == ErrorSource::Upstream;
        let may_resend =
            session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        error.set_retry(ctx.tries <= MOST && response_not_begun && by_upstream && may_resend);
        error
    }
}
