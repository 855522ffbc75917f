//! Drain: on SIGTERM what is in flight is answered, and nobody sends more.

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

/// How long a request in flight may take once the process has been told to end.
pub const GRACE_SECONDS: u64 = 3;

/// How the server runs.
pub fn conf() -> ServerConf {
    ServerConf { grace_period_seconds: Some(GRACE_SECONDS), ..Default::default() }
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
        session: &mut Session,
        _response: &mut ResponseHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
        }
        Ok(())
    }
}
