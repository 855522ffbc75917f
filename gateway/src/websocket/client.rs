//! The client's side of a WebSocket. While the backend has not answered, what the client sends is held back: it
//! is not for Pingora. Once the backend has agreed, reading from the client is what drives the tunnel; to
//! Pingora it looks as if the client said nothing until the end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Tunnel, Upgrade};

/// How much is held back. A client that sends more has to wait for the backend.
const HELD: usize = 4 * 1024;

/// What a client's stream knows of WebSockets; next to nothing, as long as nobody asks for one.
#[derive(Debug, Default)]
pub struct ClientSide {
    /// Whether reads have to do with an upgrade, or with what is left of one.
    is_concerned: AtomicBool,
    /// The upgrade that is asked for. Set by whoever has the stream shared only.
    asked: Mutex<Option<Arc<Upgrade>>>,
    held: Vec<u8>,
    tunnel: Option<Box<Tunnel>>,
    /// Whether there was one.
    is_over: bool,
    /// The last bytes that were read otherwise.
    tail: [u8; 4],
}

impl ClientSide {
    /// From now on the client waits for `upgrade`.
    pub fn await_upgrade(&self, upgrade: Arc<Upgrade>) {
        *self.asked.lock() = Some(upgrade);
        self.is_concerned.store(true, Ordering::Relaxed);
    }

    /// The upgrade has come to nothing: the connection goes on as before.
    pub fn give_up(&self) {
        *self.asked.lock() = None;
    }

    /// Whether the client has sent something behind the head of its request.
    pub fn is_ahead(&self) -> bool {
        !(self.tail.ends_with(b"\n\r\n") || self.tail.ends_with(b"\n\n"))
    }

    /// Whether [`ClientSide::poll_read`] must be asked.
    pub(crate) fn is_concerned(&self) -> bool {
        self.is_concerned.load(Ordering::Relaxed)
    }

    /// Notes what has been read otherwise.
    pub(crate) fn note(&mut self, read: &[u8]) {
        match read.last_chunk() {
            Some(tail) => self.tail = *tail,
            None => {
                self.tail.rotate_left(read.len());
                let kept = self.tail.len() - read.len();
                self.tail[kept..].copy_from_slice(read);
            }
        }
    }

    /// Reads from `client` what is for Pingora.
    pub(crate) fn poll_read(
        &mut self,
        client: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        if let Some(asked) = self.asked.get_mut()
            && self.tunnel.is_none()
        {
            self.tunnel = Tunnel::begin(asked, &mut self.held);
        }
        if let Some(tunnel) = &mut self.tunnel {
            let _ = ready!(tunnel.poll(client, cx));
            (self.tunnel, self.is_over) = (None, true);
            // As if the client had closed; how it was is known to the upgrade.
            return Poll::Ready(Ok(()));
        }
        if self.asked.get_mut().is_some() {
            return self.poll_hold(client, cx);
        }
        if self.held.is_empty() {
            self.is_concerned.store(false, Ordering::Relaxed);
            return Pin::new(client).poll_read(cx, buf);
        }
        let given = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..given]);
        self.held.drain(..given);
        Poll::Ready(Ok(()))
    }

    /// Ready only where the client has left.
    fn poll_hold(&mut self, client: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < HELD {
            let mut chunk = [0; HELD];
            let room = HELD - self.held.len();
            let mut read = ReadBuf::new(&mut chunk[..room]);
            ready!(Pin::new(&mut *client).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(read.filled());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_head_is_noticed() {
        for (reads, ahead) in [
            (&["GET / HTTP/1.1\r\nA: b\r\n\r\n"][..], false),
            (&["GET / HTTP/1.1\r\nA: b\r\n", "\r", "\n"], false),
            (&["GET / HTTP/1.1\nA: b\n\n"], false),
            (&["GET / HTTP/1.1\r\n\r\n\u{1}"], true),
            (&["GET / HTTP/1.1\r\n\r\n", "ab"], true),
        ] {
            let mut side = ClientSide::default();
            reads.iter().for_each(|read| side.note(read.as_bytes()));
            assert_eq!(side.is_ahead(), ahead, "{reads:?}");
        }
    }
}
