//! Wrong: The duration is in microseconds: every graph of it is wrong by a factor of 1000.
//! Caught: "whether `duration_ms` is a number from 50"

use std::net::SocketAddr;
use std::time::Instant;

use async_trait::async_trait;
use pingora::prelude::*;

use crate::peer::peer;

/// Proxy that forwards every request to one upstream, and logs it.
pub struct Logged {
    /// Address of the upstream.
    pub upstream: SocketAddr,
}

/// State of one request, which its phases share.
pub struct RequestCtx {
    /// Time at which the request arrived.
    pub started: Instant,
}

#[async_trait]
impl ProxyHttp for Logged {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { started: Instant::now() }
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }

    /// Logs the request when it is over, with or without an error.
    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut RequestCtx) {
        let request = session.req_header();
        tracing::info!(
            method = request.method.as_str(),
            path = request.uri.path(),
            status = session.response_written().map_or(0, |response| response.status.as_u16()),
            duration_ms = ctx.started.elapsed().as_secs_f64() * 1_000_000.0,
            "request"
        );
    }
}
