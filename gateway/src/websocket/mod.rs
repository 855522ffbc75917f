//! WebSockets (RFC 6455) over HTTP/1.1. The request for a WebSocket goes through the same phases as any other request.
//! After the backend has agreed, bytes pass in both directions through a [`tunnel`] that the gateway itself
//! implements.
//!
//! Pingora's own tunnel has three faults. First, it reads nothing from a side while it waits to write to that side, so
//! two busy sides can wait for each other for ever. Second, it ends if the backend's 101 arrives before the end of the
//! request's (empty) body. Third, its timeouts are for each direction alone. Therefore the gateway itself connects to
//! the backend ([`handshake`]), and lends the connection to Pingora until the 101. Then the [`client`]'s stream takes
//! the connection back, and Pingora sees only the end of the tunnel.

pub mod client;
mod direction;
mod drain_timer;
pub mod frames;
pub mod handshake;
pub mod request;
pub mod tunnel;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use client::ClientSide;
pub use handshake::intercept_upgrade;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use prometheus::IntGauge;
pub use request::is_asked_for;
use tokio::sync::watch;
pub use tunnel::{CloseReason, Tunnel};

use crate::upstream::connection::BackendStream;

/// Settings of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelOptions {
    /// Maximum time without a byte in either direction.
    pub idle: Duration,
    /// Grace period for open WebSockets when the process stops.
    pub grace_period: Duration,
    /// Watch that becomes true when the process stops.
    pub stopping: watch::Receiver<bool>,
    /// Gauge of open tunnels.
    pub active: IntGauge,
}

/// Attempt to have a backend switch to WebSocket. The request, the connection to the backend and the client's stream
/// share this state.
#[derive(Debug)]
pub struct Upgrade {
    options: TunnelOptions,
    state: Mutex<HandshakeState>,
    /// Number of bytes that the client has sent through the tunnel.
    received: AtomicU64,
    /// Number of bytes that the client has been sent through the tunnel.
    sent: AtomicU64,
    /// Reason why the tunnel ended; empty before that.
    close_reason: OnceLock<CloseReason>,
}

#[derive(Debug, Default)]
struct HandshakeState {
    /// Connection to the backend while it is lent to Pingora; otherwise `None`.
    backend: Option<BackendStream>,
    /// True if the 101 of the backend is passed on to the client.
    agreed: bool,
}

/// Statistics of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Number of bytes that the client has sent.
    pub received: u64,
    /// Number of bytes that the client has been sent.
    pub sent: u64,
    /// Reason why the tunnel ended; `None` while it is open.
    pub ending: Option<CloseReason>,
}

impl Upgrade {
    /// Creates an attempt that has not begun.
    pub fn new(options: TunnelOptions) -> Arc<Self> {
        Arc::new(Upgrade {
            options,
            state: Mutex::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            close_reason: OnceLock::new(),
        })
    }

    /// Records that the backend has agreed, before the client gets the 101. Returns false if there is no connection
    /// that can become a tunnel. In that case the client must not get the 101.
    #[must_use]
    pub fn agree(&self) -> bool {
        let mut state = self.state.lock();
        state.agreed = state.backend.as_ref().is_some_and(BackendStream::has_switched);
        state.agreed
    }

    /// Returns the statistics of the tunnel.
    pub fn passed(&self) -> TunnelStats {
        TunnelStats {
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            ending: self.close_reason.get().copied(),
        }
    }

    /// Takes the connection back from Pingora, with bytes that arrived after the 101; `None` if no backend has agreed.
    fn take(&self) -> Option<(Stream, Vec<u8>)> {
        let mut state = self.state.lock();
        if !state.agreed {
            return None;
        }
        state.backend.take().map(BackendStream::into_tunnel)
    }
}
