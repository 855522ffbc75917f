//! # Drain
//!
//! On SIGTERM, Pingora stops accepting connections at once. Then it waits for its *grace period*, so that
//! requests in flight can be answered. The grace period is five minutes by default. After it, the process ends,
//! and requests that are still in flight are cut off. Pingora closes idle connections at once. But a client whose
//! response is still in flight would send its next request on the same connection, to a process that is about to
//! end. So the response has to tell the client: `Connection: close`. (Pingora writes this field itself, according
//! to `set_keepalive`. Inserting the field has no effect.)
//!
//! **Your task**: give requests in flight `GRACE_SECONDS`, and tell clients when the process is shutting
//! down. (The gateway of this workspace goes further: it ends as soon as nothing is in flight. See its
//! `process/signals.rs`.)

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

use crate::peer::peer;

/// Time in seconds that a request in flight may take after the process has been told to end.
pub const GRACE_SECONDS: u64 = 3;

/// Returns the configuration of the server.
pub fn conf() -> ServerConf {
    // TODO: use `GRACE_SECONDS`. For now, requests in flight are cut off at once.
    ServerConf { grace_period_seconds: Some(0), ..Default::default() }
}

/// Proxy that forwards every request to one upstream.
pub struct Draining {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Draining {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        // TODO: is the process shutting down (`session.is_process_shutting_down()`)? Then end this connection
        // after this response.
        Ok(())
    }
}
