//! # Logging
//!
//! A log line that is a sentence can be read; one that has fields can be searched, counted and drawn. `tracing`
//! keeps fields apart from the message, and the program decides once whether they are printed as text or JSON.
//! Pingora calls `logging` when a request is over, well or not.
//!
//! **Your task**: one event a request, at level INFO, with the message `request` and the fields `method`,
//! `path` (without the query: there are passwords in those), `status` (0 if there was no response) and
//! `duration_ms`, both numbers.

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
    async fn logging(&self, session: &mut Session, _error: Option<&Error>, _ctx: &mut RequestCtx) {
        // TODO: fields in place of this sentence.
        tracing::info!("there was a request: {}", session.request_summary());
    }
}
