//! # Failover
//!
//! An upstream can fail at three points:
//!
//! - The *connection* cannot be made. Nothing has been sent, so any request may try another upstream.
//! - The connection breaks *after sending*. The upstream may already have acted on the request. An
//!   *idempotent* request, such as GET or PUT, may then be sent again. A POST must not (RFC 9110, 9.2.2):
//!   otherwise a user might pay twice. The proxy must also still have the whole request. Pingora keeps the
//!   first 64 KiB of a request's body. The rest of a longer body is gone (`retry_buffer_truncated`).
//! - The connection breaks *after the response has begun* (`response_written`). The client already has a part
//!   of it. A second response would be appended to that part, and the client would not notice: it would get a
//!   page that is made of two. So the request must fail.
//!
//! The client can break off, too, in the middle of its body. Pingora then calls the same method. What has
//! arrived of the body would look complete to another upstream, so this is no reason to try one. An error says
//! on which side it arose (`esource`).
//!
//! **Your task**: in both phases, let a request try again where that is allowed, but let it try two upstreams
//! at most. `upstream_peer` counts the tries, and takes the next upstream each time it is called.

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
        _ctx: &mut RequestCtx,
        error: Box<Error>,
    ) -> Box<Error> {
        // TODO: may this request try another upstream? Decide with `error.set_retry(…)`. Without a decision,
        // the answer is no. (Make `error` mutable, and drop the underscore from the names that you use.)
        error
    }

    /// Decides about a retry after the connection broke, or after the upstream sent bytes that are not HTTP.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        _session: &mut Session,
        mut error: Box<Error>,
        _ctx: &mut RequestCtx,
        _reused: bool,
    ) -> Box<Error> {
        // TODO: may this request try again? Decide in every case: Pingora panics if the connection broke before
        // the response began, and this method returned the error unchanged. For now, the decision is no.
        error.set_retry(false);
        error
    }
}
