//! # WebSocket
//!
//! A WebSocket begins as a GET with `Upgrade: websocket`, the *handshake*. If the upstream answers 101 (Switching
//! Protocols), both connections become a tunnel of bytes, and Pingora forwards them. Nothing must be switched on.
//! But what is right for a request can be wrong for a tunnel:
//!
//! - A browser lets every page in the world open a WebSocket to you, and sends the user's cookies with the handshake.
//!   The field Origin tells which page it is (`https://shop.example`). The proxy must refuse the wrong ones.
//! - An upstream that is silent for a second in the middle of a response is broken. A chat may be silent for an hour.
//!   Each side has its own read timeout, and the proxy below sets both for requests. They hold in tunnels too.
//! - A GET may be retried. After the 101, the client has a tunnel, and a retry would open a second one inside it.
//! - If the upstream refuses the handshake, the client's next bytes may be frames. Nothing may read them as a request.
//!
//! **Your task**: refuse handshakes with an Origin other than `self.origin` (403), let tunnels be silent for
//! `self.idle`, close a connection after a refused handshake, and retry nothing that has begun.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
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
        session.set_read_timeout(Some(self.answer));
        if !session.is_upgrade_req() {
            return Ok(false);
        }
        // TODO: refuse a wrong Origin, as in ex0305. Let the client of a tunnel be silent for longer.
        // For now, there is no WebSocket at all.
        let mut response = ResponseHeader::build(501, None)?;
        response.insert_header("Content-Length", "0")?;
        session.set_keepalive(None);
        session.write_response_header(Box::new(response), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        let Some(upstream) = self.upstreams.get(ctx.tries) else {
            return Error::e_explain(HTTPStatus(503), "there is no other upstream");
        };
        ctx.tries += 1;
        let mut peer = peer(*upstream);
        // TODO: how long may the upstream of a tunnel be silent?
        peer.options.read_timeout = Some(self.answer);
        Ok(peer)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut RequestCtx,
    ) -> Result<()> {
        // TODO: what if the upstream has refused a handshake?
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
        // TODO: this is not enough (ex0203). May a request be tried again after its response has begun?
        let again = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        error.set_retry(again && ctx.tries < self.upstreams.len());
        error
    }
}
