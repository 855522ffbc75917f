//! Client's side of a WebSocket. Until the backend has answered, the bytes of the client are held, like any bytes
//! after a request. After the backend has agreed, reads from the client drive the tunnel. To Pingora the client then
//! seems to send nothing until the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use pingora::protocols::Stream;

use super::{Tunnel, Upgrade};

/// WebSocket state of a client's stream. It is almost empty unless the client asks for a WebSocket.
#[derive(Debug, Default)]
pub struct ClientSide {
    /// True if reads belong to an upgrade, or to a tunnel that is over.
    is_concerned: AtomicBool,
    /// Upgrade that the client asks for. It is locked because the session that sets it has only a shared reference to
    /// the stream.
    asked: Mutex<Option<Arc<Upgrade>>>,
    tunnel: Option<Box<Tunnel>>,
    /// True if there was a tunnel.
    is_over: bool,
}

impl ClientSide {
    /// Makes the client wait for `upgrade`.
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

    /// Drives the tunnel, and becomes ready at its end. To Pingora it then seems that the client has closed the
    /// connection; the upgrade knows the real reason. Returns `None` if there is no tunnel, so that the caller reads
    /// as usual. `held` returns the bytes that the client has sent after its request.
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
