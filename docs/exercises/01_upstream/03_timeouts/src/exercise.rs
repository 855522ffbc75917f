//! # Timeouts
//!
//! Unless told otherwise, Pingora waits for an upstream for ever: no timeout of a peer has a default. A client
//! then waits for ever too. The right answer for an upstream that does not answer in time is 504 Gateway
//! Timeout; Pingora by itself says 502 for every upstream error.
//!
//! **Your task**: in `peer`, wait less than a second for the connection, for each read and for each write.
//! In `status`, tell the timeouts from other errors.

use std::net::SocketAddr;

use async_trait::async_trait;
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
        // TODO: a peer for `self.upstream` with three timeouts, 900 ms each, in place of this error.
        Error::e_explain(HTTPStatus(501), "there is no peer yet")
    }
}

/// The status that tells a client about `error`. (Errors of the client's own are left out here.)
pub fn status(error: &Error) -> u16 {
    match error.etype() {
        HTTPStatus(status) => *status,
        // TODO: 504 for the three kinds of timeout.
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
