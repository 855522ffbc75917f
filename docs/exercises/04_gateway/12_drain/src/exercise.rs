//! # Drain
//!
//! On SIGTERM Pingora stops accepting connections at once, and then it waits for its *grace period*, five
//! minutes unless told otherwise, in which requests in flight are answered. After that the process ends, and
//! what is still in flight is cut off. Meanwhile a client that keeps its connection would send its next request
//! into a process that is about to end, so it has to be told: `Connection: close`. (Pingora writes that field
//! itself, by what `set_keepalive` has said; inserting it has no effect.)
//!
//! **Your task**: give requests in flight `GRACE_SECONDS`, and tell clients when the process is shutting down.
//! (The gateway of this workspace goes further: it ends as soon as nothing is in flight. See its `shutdown.rs`.)

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

/// How long a request in flight may take once the process has been told to end.
pub const GRACE_SECONDS: u64 = 3;

/// How the server runs.
pub fn conf() -> ServerConf {
    // TODO: `GRACE_SECONDS`; so far requests in flight are cut off at once.
    ServerConf { grace_period_seconds: Some(0), ..Default::default() }
}

/// Forwards every request to one upstream.
pub struct Draining {
    /// Where to.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Draining {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        // TODO: is the process shutting down? Then this connection ends after this response.
        Ok(())
    }
}
