//! WebSockets (RFC 6455) over HTTP/1.1: the request for one goes through all phases like any other, and once the
//! backend has agreed, bytes pass both ways in a [`tunnel`] of our own.
//!
//! Pingora could carry them too. But it reads nothing from a side while it waits for that side to take more, so
//! that two busy ends can wait for each other for ever; it ends the tunnel where the backend's 101 is there
//! before the end of the request's (empty) body; and it knows only timeouts for each direction. So the
//! connection to the backend is made by us ([`handshake`]) and lent to Pingora as far as the 101. Then the
//! [`client`]'s stream takes it back, and Pingora sees nothing but the end.

pub mod client;
mod direction;
mod drain_timer;
pub mod frames;
pub mod handshake;
pub mod request;
pub mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::protocols::Stream;
use prometheus::IntGauge;
use tokio::sync::watch;

use crate::upstream::connection::BackendStream;

pub use client::ClientSide;
pub use handshake::intercept_upgrade;
pub use request::is_asked_for;
pub use tunnel::{CloseReason, Tunnel};

/// What holds for a tunnel.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How long nothing may pass in either direction.
    pub idle: Duration,
    /// How long the process waits for open sockets when it stops.
    pub patience: Duration,
    /// Becomes true when it stops.
    pub stopping: watch::Receiver<bool>,
    /// Where open tunnels are counted.
    pub active: IntGauge,
}

/// An attempt to have a backend switch to WebSocket: what the request, the connection to the backend and the
/// client's stream know of each other.
#[derive(Debug)]
pub struct Upgrade {
    terms: Terms,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The connection to the backend, while Pingora has it.
    backend: Option<BackendStream>,
    /// Whether the 101 has been passed on.
    agreed: bool,
    passed: TunnelStats,
}

/// What has become of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Bytes that the client sent.
    pub received: u64,
    /// Bytes that it was sent.
    pub sent: u64,
    /// How it ended; `None` as long as it has not.
    pub ending: Option<CloseReason>,
}

impl Upgrade {
    /// An attempt that has not begun.
    pub fn new(terms: Terms) -> Arc<Self> {
        Arc::new(Upgrade { terms, state: Mutex::default() })
    }

    /// Notes that the backend has agreed, before the client is told. Returns false where there is no connection that
    /// could become a tunnel: then the client must not be told.
    #[must_use]
    pub fn agree(&self) -> bool {
        let mut state = self.state.lock();
        state.agreed = state.backend.as_ref().is_some_and(BackendStream::has_switched);
        state.agreed
    }

    /// What has passed through the tunnel.
    pub fn passed(&self) -> TunnelStats {
        self.state.lock().passed
    }

    /// Takes the connection to the backend away from Pingora, once the backend has agreed.
    fn take(&self) -> Option<(Stream, Vec<u8>)> {
        let mut state = self.state.lock();
        if !state.agreed {
            return None;
        }
        state.backend.take().map(BackendStream::into_tunnel)
    }
}
