//! # Rate limit
//!
//! `request_filter` may answer a request itself: it writes a response and returns `true`, and no upstream hears
//! of it. That is the place to turn a client away that asks too often: 429 Too Many Requests (RFC 6585), with a
//! `Retry-After` that says in how many seconds it may ask again.
//!
//! Pingora's `Rate` counts events by key in windows of time. (It is an estimate in bounded memory: two clients
//! may share a counter, but no client is counted too low.)
//!
//! **Your task**: let each client pass `LIMIT` times in a window, and turn it away after that. At the latest a
//! whole window later it may pass again, so that is what `Retry-After` says.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora_limits::rate::Rate;

/// How many requests a client may send in a window.
pub const LIMIT: isize = 3;

/// Forwards requests to one upstream, but not too many of one client.
pub struct RateLimited {
    upstream: SocketAddr,
    window: Duration,
    rate: Rate,
}

impl RateLimited {
    /// Lets each client pass `LIMIT` times in a `window`, which is whole seconds.
    pub fn new(upstream: SocketAddr, window: Duration) -> RateLimited {
        RateLimited { upstream, window, rate: Rate::new(window) }
    }

    /// Whether `client` may pass; asking counts.
    fn admits(&self, client: IpAddr) -> bool {
        // TODO: count the request; is it one of the first `LIMIT` in this window?
        let _ = self.rate.rate(&client);
        true
    }

    /// What a client gets to hear that has to wait.
    fn refusal(&self) -> Result<ResponseHeader> {
        // TODO: 429, with Retry-After (whole seconds). No body follows, so Content-Length is 0.
        let response = ResponseHeader::build(501, None)?;
        let _ = self.window.as_secs();
        Ok(response)
    }
}

#[async_trait]
impl ProxyHttp for RateLimited {
    type CTX = ();
    fn new_ctx(&self) {}

    /// Returns whether the request has been answered here.
    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        let Some(client) = session.client_addr().and_then(|address| address.as_inet()) else {
            return Error::e_explain(HTTPStatus(400), "a client without an address");
        };
        if self.admits(client.ip()) {
            return Ok(false);
        }
        session.write_response_header(Box::new(self.refusal()?), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}
