//! # Failover
//!
//! An upstream can fail in two places. If the *connection* cannot be made, nothing has been sent, and any
//! request may try another upstream. If the connection breaks *after sending*, the upstream may have acted on
//! the request already: what is *idempotent* may be sent again, such as GET and PUT; a POST must not
//! (RFC 9110, 9.2.2), or somebody pays twice. And there must be something to send: Pingora keeps the first
//! 64 KiB of a request's body. Of a longer one the rest is gone (`retry_buffer_truncated`).
//!
//! **Your task**: in both phases, let a request try again where that is allowed, but try two upstreams at most.
//! `upstream_peer` counts the tries and takes the next upstream each time it is called.

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
        _ctx: &mut RequestCtx,
        error: Box<Error>,
    ) -> Box<Error> {
        // TODO: may this request try another upstream? Decide with `error.set_retry(…)`, in every case.
        // (Make `error` mutable, and drop the underscore from the names that you use.)
        error
    }

    /// The connection broke, or what came over it was not HTTP.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        _session: &mut Session,
        mut error: Box<Error>,
        _ctx: &mut RequestCtx,
        _reused: bool,
    ) -> Box<Error> {
        // TODO: and this one? Decide in every case here too; so far the decision is no.
        error.set_retry(false);
        error
    }
}
