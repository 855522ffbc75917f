//! Minimum rate of a transfer. A client that sends or reads one byte a minute occupies a connection, memory and
//! perhaps a backend for hours. A timeout between two bytes never expires, and a limit on the total time would cut
//! off clients with large transfers. So each transfer has a budget of waiting time. Each second of waiting uses up a
//! second of the budget. A number of bytes adds a second to the budget, which never exceeds its initial size.

use std::time::Duration;

/// Settings of a minimum rate: the rate, and the initial budget of waiting time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinRate {
    /// Initial budget, which is also the maximum wait for the next bytes.
    pub timeout: Duration,
    /// Number of bytes that add a second to the budget; if 0, any byte restores the whole budget.
    pub bytes_per_sec: u32,
}

/// Remaining waiting time of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct RateWatch {
    rate: MinRate,
    left: Duration,
}

/// Error of a wait that was longer than the remaining budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

impl RateWatch {
    /// Creates a watch with a full budget.
    pub fn new(rate: MinRate) -> Self {
        RateWatch { rate, left: rate.timeout }
    }

    /// Returns the maximum wait for the next bytes: the remaining budget.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// Returns true if the budget is full.
    pub fn is_full(&self) -> bool {
        self.left == self.rate.timeout
    }

    /// Records that `bytes` bytes arrived after a wait.
    ///
    /// # Errors
    /// Returns an error if the wait was longer than the remaining budget.
    pub fn on_data(&mut self, bytes: usize, waited: Duration) -> Result<(), TooSlow> {
        let in_time = waited <= self.left;
        let back = match u64::from(self.rate.bytes_per_sec) {
            0 => self.rate.timeout,
            rate => Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate),
        };
        self.left = (self.left.saturating_sub(waited) + back).min(self.rate.timeout);
        if in_time { Ok(()) } else { Err(TooSlow) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: MinRate = MinRate { timeout: Duration::from_secs(10), bytes_per_sec: 100 };

    /// Returns how many of a thousand transfers succeed, if `bytes` bytes arrive every `secs` seconds.
    fn times(rate: MinRate, bytes: usize, secs: u64) -> usize {
        let mut watch = RateWatch::new(rate);
        (0..1000).take_while(|_| watch.on_data(bytes, Duration::from_secs(secs)).is_ok()).count()
    }

    #[test]
    fn rate_above_minimum_passes_and_below_runs_out() {
        assert_eq!(times(RATE, 100, 1), 1000);
        assert_eq!(times(RATE, 1000, 10), 1000);
        // At half the rate, each transfer loses half a second.
        assert_eq!(times(RATE, 50, 1), 19);
        assert_eq!(times(RATE, 1, 9), 1);
        assert_eq!(times(RATE, 1_000_000, 11), 0, "it may be waited for no longer");
    }

    #[test]
    fn fast_transfer_saves_up_no_waiting_time() {
        let mut watch = RateWatch::new(RATE);
        watch.on_data(usize::MAX, Duration::ZERO).unwrap();
        assert_eq!(watch.left(), RATE.timeout);
        watch.on_data(1, Duration::from_secs(10)).unwrap();
        assert_eq!(watch.left(), Duration::from_millis(10));
        assert_eq!(watch.on_data(1, Duration::from_secs(10)), Err(TooSlow));
        assert!(!watch.is_full());
    }

    #[test]
    fn zero_rate_is_a_timeout_between_bytes() {
        let rate = MinRate { bytes_per_sec: 0, ..RATE };
        assert_eq!(times(rate, 1, 10), 1000);
        assert_eq!(times(rate, 1, 11), 0);
    }
}
