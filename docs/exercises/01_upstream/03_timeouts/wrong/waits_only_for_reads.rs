//! Wrong: limits only reads, so an upstream whose machine is off keeps the client waiting for minutes.
//! Caught: "connection_timeout is under a second"

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::proxy::FailToProxy;

/// Proxy that forwards every request to one upstream, and limits the time that it waits for it.
pub struct Timeouts {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

impl Timeouts {
    /// Returns the peer for the upstream, with its timeouts.
    pub fn peer(&self) -> Result<HttpPeer> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        let patience = Some(Duration::from_millis(900));
        peer.options.read_timeout = patience;
        Ok(peer)
    }
}

/// Returns the status that tells the client about `error`. (Errors that the client causes are left out here.)
pub fn status(error: &Error) -> u16 {
    match error.etype() {
        HTTPStatus(status) => *status,
        ConnectTimedout | ReadTimedout | WriteTimedout => 504,
        _ => 502,
    }
}

#[async_trait]
impl ProxyHttp for Timeouts {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        self.peer().map(Box::new)
    }

    /// Sends an error response. Pingora calls this method when no upstream can answer the request. It is the
    /// last chance to tell the client why.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut ()) -> FailToProxy {
        let error_code = status(error);
        // If this fails, the client has left, and cannot be told about the error.
        let _ = session.respond_error(error_code).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }
}
