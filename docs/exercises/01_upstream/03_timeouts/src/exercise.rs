//! # Timeouts
//!
//! The timeouts of a peer have no default. Unless you set them, Pingora waits for an upstream without a
//! limit, and so does the client. If an upstream does not answer in time, the right response is 504 Gateway
//! Timeout. Pingora itself answers every upstream error with 502.
//!
//! **Your task**: in `peer`, wait less than a second for the connection, for each read, and for each write.
//! In `status`, distinguish the timeouts from other errors.
//!
//! The exercises after this one make their peers with `docs/exercises/peer.rs`, which sets such timeouts.

use std::net::SocketAddr;

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
        // TODO: return a peer for `self.upstream` with three timeouts, 900 ms each, in place of this error.
        Error::e_explain(HTTPStatus(501), "there is no peer yet")
    }
}

/// Returns the status that tells the client about `error`. (Errors that the client causes are left out here.)
pub fn status(error: &Error) -> u16 {
    match error.etype() {
        HTTPStatus(status) => *status,
        // TODO: return 504 for the three kinds of timeout. (`ErrorType` has a variant for each, and the prelude has
        // them.)
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
