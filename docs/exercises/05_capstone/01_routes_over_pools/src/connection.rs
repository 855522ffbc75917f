//! Both connections of a request: that of the client and that to the backend. No wait on them lasts for ever.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pingora::http::RequestHeader;
use pingora::prelude::*;

/// Time without data, from the client or from the backend, that ends a request.
const IO_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which an idle connection is kept for further requests.
const IDLE_SECS: u64 = 55;

/// Returns the peer for a request: an address with its timeouts, because Pingora sets none.
pub fn peer(address: SocketAddr) -> Box<HttpPeer> {
    let mut peer = HttpPeer::new(address, false, String::new());
    peer.options.total_connection_timeout = Some(Duration::from_secs(1));
    (peer.options.read_timeout, peer.options.write_timeout) = (Some(IO_TIMEOUT), Some(IO_TIMEOUT));
    peer.options.idle_timeout = Some(Duration::from_secs(IDLE_SECS));
    Box::new(peer)
}

/// Sets the timeouts of the client's connection.
pub fn settle(session: &mut Session) {
    // A request that itself ends the connection (`Connection: close`) still does so.
    let kept = session.get_keepalive().map(|_| IDLE_SECS);
    session.set_keepalive(kept);
    session.set_write_timeout(Some(IO_TIMEOUT));
    // Otherwise a refused upload would get a reset in place of its reply.
    session.set_close_on_response_before_downstream_finish(false);
    session.set_total_drain_timeout(Some(Duration::from_secs(5)));
}

/// Returns the address of the client; `None` on a Unix socket.
pub fn client_address(session: &Session) -> Option<IpAddr> {
    session.client_addr()?.as_inet().map(|address| address.ip().to_canonical())
}

/// Replaces the fields that a client can forge by the facts that the gateway knows.
pub fn forward(session: &Session, request: &mut RequestHeader) -> Result<()> {
    for forged in ["Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-For"] {
        request.remove_header(forged);
    }
    request.insert_header("X-Forwarded-Proto", "http")?;
    let client = client_address(session).map(|address| address.to_string());
    client.map_or(Ok(()), |client| request.insert_header("X-Forwarded-For", client))
}
