//! Wrong: forwards GET and refuses everything else, so no form can be sent through this proxy.
//! Caught: "POST /anything/deep is answered by the upstream"

use std::net::SocketAddr;

use async_trait::async_trait;
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

    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        if session.req_header().method != "GET" {
            return Error::e_explain(HTTPStatus(405), "only GET is forwarded");
        }
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}
