//! Wrong: every local reply ends the connection: a client with a body to send may lose the reply, and the
//! next request needs a new connection.
//! Caught: "on one connection"

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
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
pub fn local_reply(request: &RequestHeader) -> Option<Reply> {
    match request.uri.path() {
        "/health" if matches!(request.method, Method::GET | Method::HEAD) => Some(HEALTHY),
        "/health" => Some(NOT_ALLOWED),
        path if path == "/api" || path.starts_with("/api/") => None,
        _ => Some(NOT_FOUND),
    }
}

/// Sends a local reply.
async fn send(session: &mut Session, reply: Reply) -> Result<()> {
    let mut response = ResponseHeader::build(reply.status, None)?;
    response.insert_header("Content-Type", "text/plain; charset=utf-8")?;
    response.insert_header("Content-Length", reply.body.len().to_string())?;
    if let Some(allow) = reply.allow {
        response.insert_header("Allow", allow)?;
    }
    // Pingora reads the rest of the request's body after the reply, and drops it. So the next request on the
    // connection begins where it should. A client that does not send the rest in time loses the connection.
    session.set_keepalive(None);
    let is_head = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(response), is_head).await?;
    if !is_head {
        session.write_response_body(Some(Bytes::from_static(reply.body.as_bytes())), true).await?;
    }
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
