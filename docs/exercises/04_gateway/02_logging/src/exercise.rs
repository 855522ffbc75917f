//! # Logging
//!
//! A log line that is a sentence can only be read. A log line that has fields can also be searched, counted,
//! and drawn as a graph. `tracing` keeps fields apart from the message, and the program decides once if they
//! are printed as text or as JSON. Pingora calls `logging` when a request is over, with or without an error.
//!
//! **Your task**: log one event for each request, at level INFO, with the message `request` and four fields:
//! `method`, `path` (without the query, which may contain passwords), `status` (0 if there was no response),
//! and `duration_ms`. The last two are numbers.

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
    async fn logging(&self, session: &mut Session, _error: Option<&Error>, _ctx: &mut RequestCtx) {
        // TODO: log fields in place of this sentence.
        tracing::info!("there was a request: {}", session.request_summary());
    }
}
