//! Wrong: sends only the path to the upstream, so a search or a form loses what the user entered.
//! Caught: "the query that the upstream saw"

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::prelude::*;

/// Proxy that forwards every request to one upstream.
pub struct FirstPeer {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for FirstPeer {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        _ctx: &mut (),
    ) -> Result<()> {
        let path = request.uri.path().to_owned();
        request.set_raw_path(path.as_bytes())
    }
}
