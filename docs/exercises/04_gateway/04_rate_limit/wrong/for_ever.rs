//! Wrong: A map of counters is never emptied: clients stay shut out for ever, and the map grows with each new address.
//! Caught: "requests after the second is over"

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;

use crate::peer::peer;

/// Number of requests that a client may send in a window.
pub const LIMIT: isize = 3;

/// Proxy that forwards requests to one upstream, and limits the number of requests from each client.
pub struct RateLimited {
    upstream: SocketAddr,
    window: Duration,
    rate: Mutex<HashMap<IpAddr, isize>>,
}

impl RateLimited {
    /// Returns a proxy that lets each client pass `LIMIT` times in a `window`, which is a whole number of
    /// seconds.
    pub fn new(upstream: SocketAddr, window: Duration) -> RateLimited {
        RateLimited { upstream, window, rate: Mutex::default() }
    }

    /// Returns true if `client` may pass. Each call counts as one request.
    pub fn admits(&self, client: IpAddr) -> bool {
        let Ok(mut counts) = self.rate.lock() else { return true };
        let count = counts.entry(client_network(client)).or_default();
        *count += 1;
        *count <= LIMIT
    }

    /// Returns the response head for a client that has to wait.
    fn refusal(&self) -> Result<ResponseHeader> {
        let mut response = ResponseHeader::build(429, None)?;
        response.insert_header("Retry-After", self.window.as_secs().to_string())?;
        response.insert_header("Content-Length", "0")?;
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
