//! Wrong: a tunnel has no timeout at all, so a client that has left without a word holds two connections for
//! ever.
//! Caught: "whether a tunnel without traffic closes after"

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http::header::ORIGIN;
use pingora::http::ResponseHeader;
use pingora::prelude::*;

use crate::peer::peer;

/// Proxy that forwards requests and WebSockets to the first upstream that answers.
pub struct Sockets {
    /// Addresses of the upstreams, in the order in which they are tried.
    pub upstreams: Vec<SocketAddr>,
    /// Origin of the pages that may open a WebSocket.
    pub origin: &'static str,
    /// Maximum time that either side of an ordinary request may be silent.
    pub answer: Duration,
    /// Maximum time that a WebSocket may be silent.
    pub idle: Duration,
}

/// State of one request, which its phases share.
pub struct RequestCtx {
    /// Number of upstreams that the request has tried, including the current one.
    tries: usize,
}

#[async_trait]
impl ProxyHttp for Sockets {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { tries: 0 }
    }

    /// Returns true if it has answered the request itself. The request then goes to no upstream.
    async fn request_filter(&self, session: &mut Session, _ctx: &mut RequestCtx) -> Result<bool> {
        if !session.is_upgrade_req() {
            session.set_read_timeout(Some(self.answer));
            return Ok(false);
        }
        // A client that is no browser sends no Origin, and has no cookies of another page.
        if session.req_header().headers.get(ORIGIN).is_some_and(|origin| origin != self.origin) {
            let mut response = ResponseHeader::build(403, None)?;
            response.insert_header("Content-Length", "0")?;
            session.set_keepalive(None);
            session.write_response_header(Box::new(response), true).await?;
            return Ok(true);
        }
        session.set_read_timeout(None);
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let Some(upstream) = self.upstreams.get(ctx.tries) else {
            return Error::e_explain(HTTPStatus(503), "there is no other upstream");
        };
        ctx.tries += 1;
        let mut peer = peer(*upstream);
        peer.options.read_timeout = (!session.is_upgrade_req()).then_some(self.answer);
        Ok(peer)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        if session.is_upgrade_req() && response.status != 101 {
            // The client may have sent frames already. They must not be read as a request.
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// Decides about a retry after the connection could not be made.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestCtx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(ctx.tries < self.upstreams.len());
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
        let again = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && session.response_written().is_none();
        error.set_retry(again && ctx.tries < self.upstreams.len());
        error
    }
}
