//! Minimum rate of a transfer. A client that sends or reads one byte a minute holds a connection, memory and
//! perhaps a backend for hours, and a timeout between two bytes never expires. A limit on the total time
//! would cut off clients with large transfers. So each transfer has a budget of waiting time. Each second of
//! waiting uses up a second of the budget, and a number of bytes gives a second back, but never more than the
//! budget had at first.

use std::time::Duration;

/// Minimum rate, and the budget of waiting time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Maximum wait for the next bytes, which is the whole budget.
    pub patience: Duration,
    /// Number of bytes that give a second back to the budget; with 0, any byte restores the whole budget.
    pub bytes_per_sec: u32,
}

/// Remaining waiting time of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    terms: Terms,
    left: Duration,
}

/// Error: the wait was longer than the remaining budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

impl Pace {
    /// Creates a watch with a full budget.
    pub fn new(terms: Terms) -> Self {
        Pace { terms, left: terms.patience }
    }

    /// Returns the time that the transfer may wait now.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// Returns true if the budget is full.
    pub fn is_full(&self) -> bool {
        self.left == self.terms.patience
    }

    /// Records that `bytes` bytes arrived after a wait.
    ///
    /// # Errors
    /// Returns an error if the wait was longer than the remaining budget.
    pub fn came(&mut self, bytes: usize, waited: Duration) -> Result<(), TooSlow> {
        let in_time = waited <= self.left;
        let back = match u64::from(self.terms.bytes_per_sec) {
            0 => self.terms.patience,
            rate => Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate),
        };
        self.left = (self.left.saturating_sub(waited) + back).min(self.terms.patience);
        if in_time { Ok(()) } else { Err(TooSlow) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { patience: Duration::from_secs(10), bytes_per_sec: 100 };

    /// Returns how many of a thousand transfers succeed, if `bytes` bytes arrive every `secs` seconds.
    fn times(terms: Terms, bytes: usize, secs: u64) -> usize {
        let mut pace = Pace::new(terms);
        (0..1000).take_while(|_| pace.came(bytes, Duration::from_secs(secs)).is_ok()).count()
    }

    #[test]
    fn rate_above_minimum_passes_and_below_runs_out() {
        assert_eq!(times(TERMS, 100, 1), 1000);
        assert_eq!(times(TERMS, 1000, 10), 1000);
        // At half the rate, each transfer loses half a second.
        assert_eq!(times(TERMS, 50, 1), 19);
        assert_eq!(times(TERMS, 1, 9), 1);
        assert_eq!(times(TERMS, 1_000_000, 11), 0, "it may be waited for no longer");
    }

    #[test]
    fn fast_transfer_saves_up_no_waiting_time() {
        let mut pace = Pace::new(TERMS);
        pace.came(usize::MAX, Duration::ZERO).unwrap();
        assert_eq!(pace.left(), TERMS.patience);
        pace.came(1, Duration::from_secs(10)).unwrap();
        assert_eq!(pace.left(), Duration::from_millis(10));
        assert_eq!(pace.came(1, Duration::from_secs(10)), Err(TooSlow));
        assert!(!pace.is_full());
    }

    #[test]
    fn zero_rate_is_a_timeout_between_bytes() {
        let terms = Terms { bytes_per_sec: 0, ..TERMS };
        assert_eq!(times(terms, 1, 10), 1000);
        assert_eq!(times(terms, 1, 11), 0);
    }
}
