//! Peers as the exercises make them: an upstream without TLS, with the timeouts of ex0103. Pingora sets none, and
//! would wait for an upstream that hangs without a limit.

use std::net::ToSocketAddrs;
use std::time::Duration;

use pingora::prelude::*;

/// Time without data from the upstream that ends a request.
const IO_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the peer for an upstream. The timeout for the connection is the total one: it includes a TLS handshake, and
/// `connection_timeout` does not.
pub fn peer(address: impl ToSocketAddrs) -> Box<HttpPeer> {
    let mut peer = HttpPeer::new(address, false, String::new());
    peer.options.total_connection_timeout = Some(Duration::from_secs(2));
    (peer.options.read_timeout, peer.options.write_timeout) = (Some(IO_TIMEOUT), Some(IO_TIMEOUT));
    Box::new(peer)
}
