//! What bounds how long Pingora waits for a backend: a deadline on reads from the client.
//!
//! Pingora has a timeout for each read from a backend, which bounds neither a head that drips nor all
//! attempts together, and which holds for the body as well. But while it waits for the backend it also reads from
//! the client, to see whether it leaves, and past the deadline that read fails. The request then ends like any
//! other that fails, with an answer.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::proxy::Session;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::downstream::stream::stream_of;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A deadline that a read has failed at.
const PASSED: u64 = u64::MAX - 1;

/// When reads from a client fail, if they do.
#[derive(Debug)]
pub(super) struct Deadline {
    /// What it is counted from.
    opened: Instant,
    /// Milliseconds after `opened`, [`NEVER`] or [`PASSED`]. Atomic because Pingora lends the stream out shared
    /// only; nobody else writes it.
    at: AtomicU64,
    /// Made when a read first waits, and left to run from one request to the next: setting a timer for each
    /// request would cost more than waking up once in vain.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// None so far.
    pub(super) fn never() -> Self {
        Deadline { opened: Instant::now(), at: AtomicU64::new(NEVER), timer: None }
    }

    /// It passes after `left`.
    pub(super) fn set(&self, left: Duration) {
        let at = u64::try_from((self.opened.elapsed() + left).as_millis()).unwrap_or(NEVER);
        self.at.store(at, Ordering::Relaxed);
    }

    /// It never passes.
    pub(super) fn lift(&self) {
        self.at.store(NEVER, Ordering::Relaxed);
    }

    /// Whether a read has failed at it.
    pub(super) fn has_passed(&self) -> bool {
        self.at.load(Ordering::Relaxed) == PASSED
    }

    fn instant(&self) -> Option<Instant> {
        match self.at.load(Ordering::Relaxed) {
            NEVER | PASSED => None,
            millis => Some(self.opened + Duration::from_millis(millis)),
        }
    }

    /// Ready once it has passed, where there is one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.instant() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                self.at.store(PASSED, Ordering::Relaxed);
                return Poll::Ready(());
            }
            // It was set for an earlier request.
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// From now on, reads from the client of `session` fail when `left` has passed. False where its stream cannot
/// have a deadline (a stream of HTTP/2 has none of its own).
pub fn arm(session: &Session, left: Duration) -> bool {
    stream_of(session).inspect(|stream| stream.deadline.set(left)).is_some()
}

/// From now on, reads from the client of `session` may take any time. False as for [`arm`].
pub fn disarm(session: &Session) -> bool {
    stream_of(session).inspect(|stream| stream.deadline.lift()).is_some()
}

/// Whether a read from the client of `session` has failed at its deadline.
pub fn has_passed(session: &Session) -> bool {
    stream_of(session).is_some_and(|stream| stream.deadline.has_passed())
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::downstream::stream::ClientStream;

    fn at(stream: &ClientStream, deadline_ms: u64) {
        stream.deadline.at.store(deadline_ms, Ordering::Relaxed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_fails_at_the_deadline_and_not_before() {
        let (client, mut other) = duplex(64);
        let mut stream = ClientStream::new(Box::new(client));
        let start = Instant::now();
        at(&stream, 100);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 100);

        // A later request has a later deadline, whatever the timer was set for.
        at(&stream, 300);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 300);

        // Or an earlier one, or none; and what is there can be read past any.
        at(&stream, 5_000);
        let waiting = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(waiting.is_err());
        at(&stream, 600);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 600);
        at(&stream, NEVER);
        assert!(tokio::time::timeout(Duration::from_secs(3600), stream.read_u8()).await.is_err());
        at(&stream, 1);
        other.write_u8(7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 7);
    }
}
