//! Deadline for reads from the client, which limits the time that Pingora waits for a backend.
//!
//! Pingora has a timeout for each single read from a backend. That timeout limits neither a response head that
//! arrives byte by byte nor the sum of all attempts, and it applies to the body too. But while Pingora waits for the
//! backend it also reads from the client, to notice a client that leaves. After the deadline that read fails. The
//! request then ends like any other failed request, with a response.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::proxy::Session;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::downstream::stream::stream_of;

/// Value of `at` without a deadline.
const NEVER: u64 = u64::MAX;

/// Value of `at` after a read has failed at the deadline.
const PASSED: u64 = u64::MAX - 1;

/// Deadline after which reads from a client fail.
#[derive(Debug)]
pub(super) struct Deadline {
    /// Time from which `at` is counted.
    opened: Instant,
    /// Milliseconds after `opened`, [`NEVER`] or [`PASSED`]. The value is atomic because Pingora gives access to the
    /// stream by shared reference only. No other task writes it.
    at: AtomicU64,
    /// Timer that is created when a read first waits. It runs on from one request to the next: setting a timer for
    /// each request would cost more than a wake-up without effect.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Creates a deadline that is not set.
    pub(super) fn never() -> Self {
        Deadline { opened: Instant::now(), at: AtomicU64::new(NEVER), timer: None }
    }

    /// Sets the deadline to `left` from now.
    pub(super) fn set(&self, left: Duration) {
        let at = u64::try_from((self.opened.elapsed() + left).as_millis()).unwrap_or(NEVER);
        self.at.store(at, Ordering::Relaxed);
    }

    /// Removes the deadline.
    pub(super) fn lift(&self) {
        self.at.store(NEVER, Ordering::Relaxed);
    }

    /// Returns true if a read has failed at the deadline.
    pub(super) fn has_passed(&self) -> bool {
        self.at.load(Ordering::Relaxed) == PASSED
    }

    fn instant(&self) -> Option<Instant> {
        match self.at.load(Ordering::Relaxed) {
            NEVER | PASSED => None,
            millis => Some(self.opened + Duration::from_millis(millis)),
        }
    }

    /// Becomes ready when the deadline has passed. Stays pending without a deadline.
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
            // The timer was set for an earlier request.
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// Makes reads from the client of `session` fail after `left`. Returns false if its stream cannot have a deadline: an
/// HTTP/2 stream shares the connection with other streams.
pub fn arm(session: &Session, left: Duration) -> bool {
    stream_of(session).inspect(|stream| stream.deadline.set(left)).is_some()
}

/// Removes the deadline for reads from the client of `session`. Returns false in the same case as [`arm`].
pub fn disarm(session: &Session) -> bool {
    stream_of(session).inspect(|stream| stream.deadline.lift()).is_some()
}

/// Returns true if a read from the client of `session` has failed at its deadline.
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
    async fn read_fails_at_deadline_and_not_before() {
        let (client, mut other) = duplex(64);
        let mut stream = ClientStream::new(Box::new(client));
        let start = Instant::now();
        at(&stream, 100);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 100);

        // A later request has a later deadline, although the timer was set for the earlier one.
        at(&stream, 300);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 300);

        // A later request may also have an earlier deadline or none. Bytes that have arrived can be read after any
        // deadline.
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
