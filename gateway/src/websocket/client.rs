//! The client's side of a WebSocket. While the backend has not answered, what the client sends is held back, as always
//! behind a request. Once the backend has agreed, reading from the client is what drives the tunnel; to
//! Pingora it looks as if the client said nothing until the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use pingora::protocols::Stream;

use super::{Tunnel, Upgrade};

/// What a client's stream knows of WebSockets; next to nothing, as long as nobody asks for one.
#[derive(Debug, Default)]
pub struct ClientSide {
    /// Whether reads have to do with an upgrade, or with what is left of one.
    is_concerned: AtomicBool,
    /// The upgrade that is asked for. Set by whoever has the stream shared only.
    asked: Mutex<Option<Arc<Upgrade>>>,
    tunnel: Option<Box<Tunnel>>,
    /// Whether there was one.
    is_over: bool,
}

impl ClientSide {
    /// From now on the client waits for `upgrade`.
    pub fn await_upgrade(&self, upgrade: Arc<Upgrade>) {
        *self.asked.lock() = Some(upgrade);
        self.is_concerned.store(true, Ordering::Relaxed);
    }

    /// The upgrade has come to nothing.
    pub fn give_up(&self) {
        *self.asked.lock() = None;
    }

    /// Whether [`ClientSide::poll_tunnel`] must be asked.
    pub(crate) fn is_concerned(&self) -> bool {
        self.is_concerned.load(Ordering::Relaxed)
    }

    /// Ready at the end of the tunnel, which to Pingora looks as if the client had closed; how it was is known to the
    /// upgrade. `None` where there is no tunnel, so that reading goes on as always. `held` is what the client has
    /// sent behind its request.
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
