//! # Early answer
//!
//! Not every request needs an upstream. `request_filter` runs before an upstream is chosen. If it writes a
//! response and returns true, the request goes no further. Such a response is a *local reply*. A load balancer
//! asks for a health page, a wrong path gets 404, a wrong method gets 405 with the field Allow.
//!
//! A local reply must have a Content-Length. Without it, an HTTP/1 client finds the end of the body only when
//! the connection closes. The response to HEAD has the same fields as the response to GET, but no body
//! (RFC 9110, 9.3.2).
//!
//! And the request may have a body, which the proxy has not read. The next request on the connection begins after
//! it. Pingora's default is to close the connection. But a kernel that closes a connection with unread bytes sends a
//! reset, and the reset can destroy the reply before the client has read it. It is better to read the rest and to
//! drop it (`set_close_on_response_before_downstream_finish`), but not for as long as the client likes
//! (`set_total_drain_timeout`).
//!
//! **Your task**: write `local_reply` and `send`. `/health` gets `HEALTHY` for GET and HEAD, and `NOT_ALLOWED`
//! for other methods. `/api` and all paths below it go to the upstream. Every other path gets `NOT_FOUND`. The
//! connection stays open, and the rest of a request's body may take `DRAIN`, but not longer.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;

use crate::peer::peer;

/// Maximum time for the rest of a request's body to arrive after a local reply.
pub const DRAIN: Duration = Duration::from_secs(1);

/// Proxy that forwards requests for `/api` to one upstream, and answers all others itself.
pub struct Front {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

/// Local reply: a response that the proxy makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Status of the response.
    pub status: u16,
    /// Body of the response.
    pub body: &'static str,
    /// Value of the field Allow, which a 405 must have.
    pub allow: Option<&'static str>,
}

/// Reply of the health page.
pub const HEALTHY: Reply = Reply { status: 200, body: "healthy ✓\n", allow: None };
/// Reply to a path that does not exist.
pub const NOT_FOUND: Reply = Reply { status: 404, body: "there is no such page\n", allow: None };
/// Reply to a method that the path does not have.
pub const NOT_ALLOWED: Reply = Reply { status: 405, body: "only GET and HEAD\n", allow: Some("GET, HEAD") };

/// Returns the local reply to a request; `None` if the request goes to the upstream.
pub fn local_reply(_request: &RequestHeader) -> Option<Reply> {
    // TODO: choose by the path and the method. For now, every request gets a 501.
    Some(Reply { status: 501, body: "not written yet\n", allow: None })
}

/// Sends a local reply.
async fn send(session: &mut Session, reply: Reply) -> Result<()> {
    let mut response = ResponseHeader::build(reply.status, None)?;
    response.insert_header("Content-Type", "text/plain; charset=utf-8")?;
    // TODO: insert Content-Length, and Allow if the reply has it. Keep the connection, and limit the time for the
    // rest of the request's body. Then send the body too, unless the request is HEAD. For now, there is no body.
    response.insert_header("Content-Length", "0")?;
    session.write_response_header(Box::new(response), true).await?;
    Ok(())
}

#[async_trait]
impl ProxyHttp for Front {
    type CTX = ();
    fn new_ctx(&self) {}

    /// Returns true if it has answered the request itself. The request then goes to no upstream.
    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        let Some(reply) = local_reply(session.req_header()) else { return Ok(false) };
        send(session, reply).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }
}
