//! Metrics that are rates. Every second, they are computed from the counters of the last seconds.

use std::collections::VecDeque;
use std::time::Duration;

use super::{LogHandle, Metrics};

/// Length of the window of a rate, in seconds.
const WINDOW_SECS: usize = 10;

/// Updates the rates every second, for ever. Also updates the number of lost log lines, which only the log knows.
pub async fn keep_rates(metrics: &Metrics, log: &LogHandle) {
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    // One pair of totals a second, the oldest first.
    let mut history: VecDeque<(u64, u64)> = VecDeque::new();
    loop {
        // The first tick comes at once, and only records the initial totals.
        every_second.tick().await;
        let (answered, failed) = metrics.answered();
        let (answered_then, failed_then) = history.front().copied().unwrap_or((answered, failed));
        let responses = answered.saturating_sub(answered_then) as f64;
        let failures = failed.saturating_sub(failed_then) as f64;
        metrics.requests_per_second.set(responses / history.len().max(1) as f64);
        metrics.success_rate.set(if responses > 0.0 { 1.0 - failures / responses } else { 1.0 });
        metrics.log_lines_dropped.set(i64::try_from(log.lost_lines()).unwrap_or(i64::MAX));
        history.push_back((answered, failed));
        if history.len() > WINDOW_SECS {
            history.pop_front();
        }
    }
}
