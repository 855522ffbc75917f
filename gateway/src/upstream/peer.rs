//! How a backend is spoken to: connection, timeouts, keep-alive.

use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;

use super::BackendState;
use crate::config::Upstream;

/// The compiled `[upstream]` table.
pub struct PeerSettings {
    connect_timeout: Duration,
    read_timeout: Duration,
    write_timeout: Duration,
    idle_timeout: Duration,
}

impl From<&Upstream> for PeerSettings {
    fn from(config: &Upstream) -> Self {
        PeerSettings {
            connect_timeout: config.connect_timeout_ms.duration(),
            read_timeout: config.read_timeout_secs.duration(),
            write_timeout: config.write_timeout_secs.duration(),
            idle_timeout: config.idle_timeout_secs.duration(),
        }
    }
}

impl PeerSettings {
    /// What Pingora needs to connect to `backend`, for a request whose response must begin within `left`.
    /// Where nobody else watches that (`timed`), it bounds each read instead. Each of these timeouts would be
    /// infinite if it were not set.
    pub fn peer(&self, backend: &BackendState, left: Duration, timed: bool) -> Box<HttpPeer> {
        let mut peer = HttpPeer::new(backend.address, false, String::new());
        let options = &mut peer.options;
        options.connection_timeout = Some(self.connect_timeout.min(left));
        options.total_connection_timeout = Some(self.connect_timeout.min(left));
        options.read_timeout = Some(if timed { self.read_timeout } else { self.read_timeout.min(left) });
        options.write_timeout = Some(self.write_timeout);
        options.idle_timeout = Some(self.idle_timeout);
        Box::new(peer)
    }
}
