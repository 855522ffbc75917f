//! Wrong: The question is asked when the request begins: requests that were in flight before SIGTERM keep their connection.
//! Caught: "Connection in the response during the drain"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

use crate::peer::peer;

/// Time in seconds that a request in flight may take after the process has been told to end.
pub const GRACE_SECONDS: u64 = 3;

/// Returns the configuration of the server.
pub fn conf() -> ServerConf {
    ServerConf { grace_period_seconds: Some(GRACE_SECONDS), ..Default::default() }
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

    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
        }
        Ok(false)
    }
}
