//! Timestamp of a line of the access log, in the form that the process log has (RFC 3339, with microseconds). A calendar
//! is consulted once in a second; within it, only the fraction is written anew.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{self, FormatTime};

/// Length of the text up to the point before the fraction: `2026-11-30T22:15:54.`.
const SECONDS: usize = 20;

/// Text of the last timestamp.
#[derive(Default)]
pub(super) struct Timestamp {
    text: String,
    /// Second of the text, counted from the epoch; `None` if it is not known.
    second: Option<u64>,
}

impl Timestamp {
    /// Returns the text of the current time.
    pub(super) fn now(&mut self) -> &str {
        let now = since_epoch();
        if self.second == Some(now.as_secs()) {
            self.text.truncate(SECONDS);
            push_micros(&mut self.text, now.subsec_micros());
        } else {
            self.text.clear();
            // A write to a string does not fail.
            let _ = time::SystemTime.format_time(&mut Writer::new(&mut self.text));
            // The formatter reads the clock itself. If a second has begun meanwhile, it may be that of the text or not.
            self.second = Some(now.as_secs()).filter(|second| since_epoch().as_secs() == *second);
        }
        &self.text
    }
}

/// Returns the time since the epoch, or zero if the clock is set to an earlier time.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Appends six digits and the `Z` of UTC.
fn push_micros(text: &mut String, micros: u32) {
    let digit = |power: u32| char::from(b'0' + (micros / 10_u32.pow(power) % 10) as u8);
    text.extend([5, 4, 3, 2, 1, 0].map(digit));
    text.push('Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_the_process_log() {
        let mut timestamp = Timestamp::default();
        let start = SystemTime::now();
        let mut previous = String::new();
        // The loop ends in another second than it begins.
        while start.elapsed().is_ok_and(|passed| passed < Duration::from_millis(1100)) {
            let mut before = String::new();
            time::SystemTime.format_time(&mut Writer::new(&mut before)).unwrap();
            let now = timestamp.now().to_owned();
            let mut after = String::new();
            time::SystemTime.format_time(&mut Writer::new(&mut after)).unwrap();
            // Texts of this form are in the order of their times.
            assert!(before <= now && now <= after && previous <= now, "{previous} {before} {now} {after}");
            assert_eq!(now.len(), before.len());
            previous = now;
        }
    }
}
