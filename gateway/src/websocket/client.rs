//! Client's side of a WebSocket. Until the backend has answered, the bytes of the client are held, like any bytes
//! after a request. After the backend has agreed, reads from the client drive the tunnel. To Pingora the client then
//! seems to send nothing until the tunnel ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use pingora::protocols::Stream;

use super::{Tunnel, Upgrade};

/// WebSocket state of a client's stream. It needs little memory unless the client asks for a WebSocket.
#[derive(Debug, Default)]
pub struct ClientSide {
    /// True from the request for a WebSocket on, even after the tunnel has ended; false again if the upgrade fails.
    is_concerned: AtomicBool,
    /// Upgrade that the client asks for; `None` if there is none. The lock is needed because the session that sets the
    /// upgrade has only a shared reference to the stream.
    asked: Mutex<Option<Arc<Upgrade>>>,
    tunnel: Option<Box<Tunnel>>,
    /// True once the tunnel has ended.
    is_over: bool,
}

impl ClientSide {
    /// Notes that the client waits for `upgrade`.
    pub fn await_upgrade(&self, upgrade: Arc<Upgrade>) {
        *self.asked.lock() = Some(upgrade);
        self.is_concerned.store(true, Ordering::Relaxed);
    }

    /// Removes the upgrade after it has failed.
    pub fn give_up(&self) {
        *self.asked.lock() = None;
    }

    /// Returns true if reads must call [`ClientSide::poll_tunnel`].
    pub(crate) fn is_concerned(&self) -> bool {
        self.is_concerned.load(Ordering::Relaxed)
    }

    /// Forwards bytes through the tunnel, and becomes ready when it ends. To Pingora the client then seems to have
    /// closed the connection; the upgrade has the real reason. Returns `None` if there is no tunnel, so that the
    /// caller reads as usual. `held` returns the bytes that the client sent after its request.
    pub(crate) fn poll_tunnel(
        &mut self,
        client: &mut Stream,
        held: impl FnOnce() -> Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Option<Poll<()>> {
        if self.is_over {
            return Some(Poll::Ready(()));
        }
        match self.asked.get_mut() {
            Some(asked) if self.tunnel.is_none() => self.tunnel = Tunnel::begin(asked, held),
            None => self.is_concerned.store(false, Ordering::Relaxed),
            Some(_) => {}
        }
        self.tunnel.as_ref()?;
        Some(self.poll_end(client, cx))
    }

    fn poll_end(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(tunnel) = &mut self.tunnel {
            let _ = ready!(tunnel.poll(client, cx));
        }
        (self.tunnel, self.is_over) = (None, true);
        Poll::Ready(())
    }
}
