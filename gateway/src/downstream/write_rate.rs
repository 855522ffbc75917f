//! Minimum rate at which a client must read a response: `proxy.send_timeout_secs` and `proxy.min_send_bytes_per_sec`.
//! For a client that does not read, the gateway would have to hold data from the backend for ever.
//!
//! Pingora limits the time of the writes of one response. The writes of an HTTP/2 connection have no limit, although
//! they may include much data of streams that have ended. Therefore this module measures the time that the gateway
//! waits for the client's socket.

use std::io;
use std::task::{Context, Poll};

use prometheus::IntCounter;
use tokio::time::Instant;

use crate::util::min_rate::{MinRate, RateWatch};
use crate::util::timers::LazyTimer;

/// Check of the rate at which a client reads.
#[derive(Debug)]
pub(super) struct WriteRate {
    watch: RateWatch,
    /// Start of the current wait for the client's socket; `None` while the gateway does not wait.
    since: Option<Instant>,
    /// Number of bytes written to the stream since the end of the last wait or flush, whichever is later.
    bytes: usize,
    timer: LazyTimer,
    /// Counter of clients that were given up because they read too slowly.
    too_slow: IntCounter,
}

impl WriteRate {
    pub(super) fn new(rate: MinRate, too_slow: IntCounter) -> Self {
        WriteRate {
            watch: RateWatch::new(rate),
            since: None,
            bytes: 0,
            timer: LazyTimer::default(),
            too_slow,
        }
    }

    /// Checks the result of a write to the stream. Returns an error if the client is too slow.
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

    /// Checks the result of a flush of the stream. Returns an error if the client is too slow.
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

    /// Counts the bytes that have been written, and ends the current wait. The result of the rate check is ignored,
    /// because only `wait` gives a client up: a wait that has ended is good enough.
    fn settle(&mut self) {
        let waited = self.since.take().map(|since| since.elapsed());
        if waited.is_some() || !self.watch.is_full() {
            let _in_time = self.watch.on_data(self.bytes, waited.unwrap_or_default());
        }
        self.bytes = 0;
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let until = *self.since.get_or_insert_with(Instant::now) + self.watch.left();
        self.timer.poll_until(until, cx).map(|()| {
            self.too_slow.inc();
            io::Error::new(io::ErrorKind::TimedOut, "the client reads its responses too slowly")
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

    const RATE: MinRate = MinRate { timeout: Duration::from_secs(10), bytes_per_sec: 100 };

    /// Returns the number of seconds until the gateway gives up a client that reads `bytes` bytes every `secs` seconds;
    /// `None` if the gateway does not do so within an hour.
    async fn given_up_after(bytes: usize, secs: u64) -> Option<u64> {
        let (inner, mut other) = duplex(64);
        let too_slow = IntCounter::new("a", "b").unwrap();
        let mut stream = ClientStream::new(Box::new(inner)).with_min_write_rate(RATE, too_slow.clone());
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
    async fn silent_or_slow_client_times_out_and_fast_client_does_not() {
        assert_eq!(given_up_after(0, 1).await, Some(10));
        assert_eq!(given_up_after(200, 1).await, None);
        let drip = given_up_after(1, 9).await.unwrap();
        assert!((10..=20).contains(&drip), "{drip}");
    }
}
