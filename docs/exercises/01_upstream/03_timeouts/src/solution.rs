//! Timeouts: an upstream that stalls is given up in under a second, and the client is told 504.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora::ErrorType::{ConnectTimedout, ReadTimedout, WriteTimedout};
use pingora::prelude::*;
use pingora::proxy::FailToProxy;

/// Forwards every request to one upstream, but does not wait for it for ever.
pub struct Timeouts {
    /// Where to.
    pub upstream: SocketAddr,
}

impl Timeouts {
    /// The upstream, and how long to wait for it.
    pub fn peer(&self) -> Result<HttpPeer> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        let patience = Some(Duration::from_millis(900));
        peer.options.connection_timeout = patience;
        peer.options.read_timeout = patience;
        peer.options.write_timeout = patience;
        Ok(peer)
    }
}

/// The status that tells a client about `error`. (Errors of the client's own are left out here.)
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

    /// Called when a request cannot be answered by an upstream: the last chance to say why.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _ctx: &mut ()) -> FailToProxy {
        let error_code = status(error);
        // Where this fails the client has left, and nobody is there to be told.
        let _ = session.respond_error(error_code).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }
}
