//! # Measuring
//!
//! A mean hides what users feel: if one request in a hundred takes a second, the mean is ten milliseconds. So
//! latencies are reported as *percentiles*. The 99th percentile (p99) is the latency that 99 % of the requests
//! did not exceed. With the *nearest rank*, it is the sample at place ⌈0.99 · n⌉ of the sorted samples, counted
//! from 1.
//!
//! Many load generators measure wrongly. They send a request, wait for the response, and send the next one. If
//! the server stalls for a second, one request is slow, and the hundred requests that users would have sent in
//! that second are not sent at all. This is *coordinated omission*. The p99 looks fine. The cure: each request
//! has a moment at which it is due, and its latency counts from then, although it could be sent only later.
//! Requests that fail count, too. Otherwise a server that refuses half of its requests looks fast.
//!
//! **Your task**: write `percentile` and `measure`. (To measure a server for real, use a tool: `wrk2` and `oha` have
//! such a schedule, and `wrk` has none.)

use std::time::Duration;

use testkit::Client;

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
        // TODO: the sample at the rank.
        let _ = percent;
        self.samples.first().copied()
    }
}

/// Sends `count` GET requests for `url`, one after another, one in each `interval`. Returns their latencies.
pub async fn measure(url: &str, count: u32, interval: Duration) -> Recorder {
    let client = Client::new();
    let mut recorder = Recorder::default();
    // TODO: `count` requests. When is each of them due, and from when on does its latency count?
    let _ = (count, interval);
    let status = client.status(url).await;
    recorder.record(Duration::ZERO, status == Ok(200));
    recorder
}
