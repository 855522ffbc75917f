//! Wrong: the samples are not sorted, so the percentile is the latency of a request at some time.
//! Caught: "p50 of 100, 99, … 1 ms"

use std::time::Duration;

use testkit::Client;
use tokio::time::{Instant, sleep_until};

/// Latencies of the requests of a measurement.
#[derive(Debug, Default)]
pub struct Recorder {
    samples: Vec<Duration>,
    failed: usize,
}

impl Recorder {
    /// Adds the latency of a request.
    pub fn record(&mut self, latency: Duration, succeeded: bool) {
        self.samples.push(latency);
        self.failed += usize::from(!succeeded);
    }

    /// Returns the number of requests, and how many of them have failed.
    pub fn counts(&self) -> (usize, usize) {
        (self.samples.len(), self.failed)
    }

    /// Returns the latency that `percent` of all requests did not exceed (nearest rank); `None` without requests.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let sorted = self.samples.clone();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        let index = rank.clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).copied()
    }
}

/// Sends `count` GET requests for `url`, one after another, one in each `interval`. Returns their latencies.
pub async fn measure(url: &str, count: u32, interval: Duration) -> Recorder {
    let (client, start) = (Client::new(), Instant::now());
    let mut recorder = Recorder::default();
    for number in 0..count {
        // A request that comes late because the one before it was slow has waited since this moment.
        let due = start + interval * number;
        sleep_until(due).await;
        let status = client.status(url).await;
        recorder.record(due.elapsed(), status == Ok(200));
    }
    recorder
}
