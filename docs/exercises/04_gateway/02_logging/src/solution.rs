//! Logging: one line a request, with fields that machines can read.

use std::net::SocketAddr;
use std::time::Instant;

use async_trait::async_trait;
use pingora::prelude::*;

/// Forwards every request to one upstream, and logs it.
pub struct Logged {
    /// Where to.
    pub upstream: SocketAddr,
}

/// What is remembered about one request.
pub struct RequestCtx {
    /// When it came.
    pub started: Instant,
}

#[async_trait]
impl ProxyHttp for Logged {
    type CTX = RequestCtx;
    fn new_ctx(&self) -> RequestCtx {
        RequestCtx { started: Instant::now() }
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut RequestCtx) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    /// The request is over, well or not.
    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut RequestCtx) {
        let request = session.req_header();
        tracing::info!(
            method = request.method.as_str(),
            path = request.uri.path(),
            status = session.response_written().map_or(0, |response| response.status.as_u16()),
            duration_ms = ctx.started.elapsed().as_secs_f64() * 1000.0,
            "request"
        );
    }
}
