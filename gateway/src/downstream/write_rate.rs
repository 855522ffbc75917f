//! How slowly a client may take what it is sent: `proxy.send_timeout_secs` and `proxy.min_send_bytes_per_sec`. One that
//! takes nothing has the gateway hold what a backend has sent long ago.
//!
//! Pingora bounds the writes of a response, but not those of a connection of HTTP/2, on which streams that have ended
//! may have much left to be written. So it is the socket that is looked at, and the time that it lets wait.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use prometheus::IntCounter;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::util::min_rate::{Pace, Terms};

/// How a client takes what it is sent.
#[derive(Debug)]
pub(super) struct WriteRate {
    pace: Pace,
    /// Since when it is waited for.
    since: Option<Instant>,
    /// What has been given to the stream since it was waited for, or was all written.
    bytes: usize,
    /// Made when it is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    /// Counts clients that are too slow.
    too_slow: IntCounter,
}

impl WriteRate {
    pub(super) fn new(terms: Terms, too_slow: IntCounter) -> Self {
        WriteRate { pace: Pace::new(terms), since: None, bytes: 0, timer: None, too_slow }
    }

    /// What becomes of a write that the stream has made of it: an error where the client is too slow.
    pub(super) fn on_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.bytes = self.bytes.saturating_add(bytes);
                if self.since.is_some() {
                    self.settle();
                }
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => self.wait(cx).map(Err),
        }
    }

    /// The same for a flush.
    pub(super) fn on_flush(
        &mut self,
        cx: &mut Context<'_>,
        flushed: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        match flushed {
            Poll::Ready(Ok(())) => {
                self.settle();
                flushed
            }
            Poll::Ready(Err(_)) => flushed,
            Poll::Pending => self.wait(cx).map(Err),
        }
    }

    /// So much has been taken, after whatever wait. That it came to an end is good enough: see `wait`.
    fn settle(&mut self) {
        let waited = self.since.take().map(|since| since.elapsed());
        if waited.is_some() || !self.pace.is_full() {
            let _in_time = self.pace.came(self.bytes, waited.unwrap_or_default());
        }
        self.bytes = 0;
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let until = *self.since.get_or_insert_with(Instant::now) + self.pace.left();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).map(|()| {
            self.too_slow.inc();
            io::Error::new(io::ErrorKind::TimedOut, "the client takes its answers too slowly")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::downstream::stream::ClientStream;

    const TERMS: Terms = Terms { patience: Duration::from_secs(10), bytes_per_sec: 100 };

    /// How long it takes until a client that reads `bytes` every `secs` is given up, of an hour.
    async fn given_up_after(bytes: usize, secs: u64) -> Option<u64> {
        let (inner, mut other) = duplex(64);
        let too_slow = IntCounter::new("a", "b").unwrap();
        let mut stream = ClientStream::new(Box::new(inner)).with_min_write_rate(TERMS, too_slow.clone());
        let client = tokio::spawn(async move {
            let mut read = vec![0; bytes];
            if bytes == 0 {
                std::future::pending::<()>().await;
            }
            while other.read_exact(&mut read).await.is_ok() {
                sleep(Duration::from_secs(secs)).await;
            }
        });
        let start = Instant::now();
        let writing = async {
            loop {
                if let Err(error) = async {
                    stream.write_all(&[0; 32]).await?;
                    stream.flush().await
                }
                .await
                {
                    return error;
                }
            }
        };
        let ended = timeout(Duration::from_secs(3600), writing).await;
        client.abort();
        let error = ended.ok()?;
        assert_eq!((error.kind(), too_slow.get()), (io::ErrorKind::TimedOut, 1));
        Some(start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_or_little_is_given_up_and_who_takes_enough_is_not() {
        assert_eq!(given_up_after(0, 1).await, Some(10));
        assert_eq!(given_up_after(200, 1).await, None);
        let drip = given_up_after(1, 9).await.unwrap();
        assert!((10..=20).contains(&drip), "{drip}");
    }
}
