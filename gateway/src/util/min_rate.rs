//! How long somebody may let others wait. A client that sends or takes one byte a minute holds a connection, memory
//! and perhaps a backend for hours, and no timeout between two bytes ever passes; a bound on the whole time would cut
//! off those who have much to send. So waiting is paid for: there is so much patience at the beginning, each second
//! that is waited takes a second of it, and so many bytes bring one back, but never more than there was.

use std::time::Duration;

/// How patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The longest that is waited for anything.
    pub patience: Duration,
    /// So many bytes bring a second back; 0: any bring all of it back.
    pub bytes_per_sec: u32,
}

/// How much patience is left with somebody.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    terms: Terms,
    left: Duration,
}

/// There was none left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

impl Pace {
    /// All of it.
    pub fn new(terms: Terms) -> Self {
        Pace { terms, left: terms.patience }
    }

    /// How long may be waited from now on.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// Whether that is as long as ever.
    pub fn is_full(&self) -> bool {
        self.left == self.terms.patience
    }

    /// So many bytes have come after a wait.
    ///
    /// # Errors
    /// Where the wait was longer than there was patience.
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

    /// How many times `bytes` may come every `secs`, of a thousand.
    fn times(terms: Terms, bytes: usize, secs: u64) -> usize {
        let mut pace = Pace::new(terms);
        (0..1000).take_while(|_| pace.came(bytes, Duration::from_secs(secs)).is_ok()).count()
    }

    #[test]
    fn who_keeps_up_the_rate_goes_on_and_who_does_not_is_too_slow_in_the_end() {
        assert_eq!(times(TERMS, 100, 1), 1000);
        assert_eq!(times(TERMS, 1000, 10), 1000);
        // Half the rate: half a second lost with each.
        assert_eq!(times(TERMS, 50, 1), 19);
        assert_eq!(times(TERMS, 1, 9), 1);
        assert_eq!(times(TERMS, 1_000_000, 11), 0, "it may be waited for no longer");
    }

    #[test]
    fn nothing_is_saved_up() {
        let mut pace = Pace::new(TERMS);
        pace.came(usize::MAX, Duration::ZERO).unwrap();
        assert_eq!(pace.left(), TERMS.patience);
        pace.came(1, Duration::from_secs(10)).unwrap();
        assert_eq!(pace.left(), Duration::from_millis(10));
        assert_eq!(pace.came(1, Duration::from_secs(10)), Err(TooSlow));
        assert!(!pace.is_full());
    }

    #[test]
    fn without_a_rate_it_is_a_timeout_between_bytes() {
        let terms = Terms { bytes_per_sec: 0, ..TERMS };
        assert_eq!(times(terms, 1, 10), 1000);
        assert_eq!(times(terms, 1, 11), 0);
    }
}
