//! # Rate limit
//!
//! `request_filter` may answer a request itself: it writes a response and returns `true`, and no upstream
//! sees the request. This is the place to turn away a client that sends too many requests. The response is
//! 429 Too Many Requests (RFC 6585). Its field `Retry-After` says after how many seconds the client may try
//! again.
//!
//! Pingora's `Rate` counts events by key in windows of time: `observe` counts one, and returns the number so far.
//! (The count is an estimate in bounded memory: two clients may share a counter, but no client is counted too
//! low.)
//!
//! **Your task**: let each client pass `LIMIT` times in a window, and turn it away after that. It may pass
//! again after one whole window at the latest. So `Retry-After` gives the length of the window. (What
//! counts as one client is in `client_network`.)

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora_limits::rate::Rate;

use crate::peer::peer;

/// Number of requests that a client may send in a window.
pub const LIMIT: isize = 3;

/// Proxy that forwards requests to one upstream, and limits the number of requests from each client.
pub struct RateLimited {
    upstream: SocketAddr,
    window: Duration,
    rate: Rate,
}

impl RateLimited {
    /// Returns a proxy that lets each client pass `LIMIT` times in a `window`, which is a whole number of
    /// seconds.
    pub fn new(upstream: SocketAddr, window: Duration) -> RateLimited {
        RateLimited { upstream, window, rate: Rate::new(window) }
    }

    /// Returns true if `client` may pass. Each call counts as one request.
    pub fn admits(&self, client: IpAddr) -> bool {
        // TODO: count the request. Is it one of the first `LIMIT` in this window?
        let _ = self.rate.rate(&client_network(client));
        true
    }

    /// Returns the response head for a client that has to wait.
    fn refusal(&self) -> Result<ResponseHeader> {
        // TODO: return 429, with Retry-After (whole seconds). No body follows, so Content-Length is 0.
        let response = ResponseHeader::build(501, None)?;
        let _ = self.window.as_secs();
        Ok(response)
    }
}

/// Returns the addresses that are counted as one client. A client with IPv6 has a whole /64 network, and could
/// send each request from another address.
fn client_network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[async_trait]
impl ProxyHttp for RateLimited {
    type CTX = ();
    fn new_ctx(&self) {}

    /// Returns true if it has answered the request itself. The request then goes to no upstream.
    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        let Some(client) = session.client_addr().and_then(|address| address.as_inet()) else {
            return Error::e_explain(HTTPStatus(400), "the client has no IP address");
        };
        if self.admits(client.ip()) {
            return Ok(false);
        }
        session.write_response_header(Box::new(self.refusal()?), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.upstream))
    }
}
