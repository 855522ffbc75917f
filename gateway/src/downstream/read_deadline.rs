//! Deadline for reads from the client, which also limits the time that Pingora waits for a backend.
//!
//! Pingora has a timeout for each single read from a backend, also for reads of the body. That timeout limits neither a
//! response head that arrives byte by byte nor the total time of several attempts. But while Pingora waits for the
//! backend, it also reads from the client, to notice when the client leaves. After the deadline, that read fails, and
//! the request ends like any other failed request: with a response.

use std::time::{Duration, Instant};

use pingora::proxy::Session;

use crate::downstream::stream::stream_of;

/// Makes reads from the client of `session` fail `left` after `now`. Returns false over HTTP/2, where no deadline is
/// possible: the request shares its connection with other requests.
pub fn arm(session: &Session, now: Instant, left: Duration) -> bool {
    stream_of(session).inspect(|stream| stream.deadline.set_after(now.into(), left)).is_some()
}

/// Removes the deadline for reads from the client of `session`. Returns false over HTTP/2, as [`arm`] does.
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
    use tokio::time::Instant;

    use super::*;
    use crate::downstream::stream::ClientStream;

    #[tokio::test(start_paused = true)]
    async fn read_fails_at_deadline_and_not_before() {
        let (client, mut other) = duplex(64);
        let mut stream = ClientStream::new(Box::new(client));
        let start = Instant::now();
        let set = |stream: &ClientStream, millis| stream.deadline.set(Duration::from_millis(millis));
        set(&stream, 100);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 100);

        // A later request has a later deadline, although the timer was set for the earlier one.
        set(&stream, 200);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 300);

        // A later request may also have an earlier deadline or none. Bytes that have arrived can always be read.
        set(&stream, 5_000);
        let waiting = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(waiting.is_err());
        set(&stream, 200);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_millis(), 600);
        stream.deadline.lift();
        assert!(tokio::time::timeout(Duration::from_secs(3600), stream.read_u8()).await.is_err());
        set(&stream, 0);
        other.write_u8(7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 7);
    }
}
