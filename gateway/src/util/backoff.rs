//! Delays before a failed action is tried again (exponential backoff).

use std::time::Duration;

/// Rule for a delay that doubles with each failure in a row.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Delay after the first failure.
    pub first: Duration,
    /// Maximum delay.
    pub most: Duration,
}

impl Backoff {
    /// Returns the delay after the `failures`th failure in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.most)
    }

    /// Returns the delay less a random part, which is at most `share` of it. So actions that failed together are not
    /// tried again together. With a share of 1, the whole delay is random ("full jitter").
    pub fn with_jitter(&self, failures: u32, share: f64) -> Duration {
        self.delay(failures).mul_f64(1.0 - share * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_up_to_the_maximum() {
        let backoff = Backoff { first: Duration::from_secs(2), most: Duration::from_secs(9) };
        assert_eq!(
            [0, 1, 2, 3, 4, u32::MAX].map(|failures| backoff.delay(failures).as_secs()),
            [2, 2, 4, 8, 9, 9]
        );
        let delays: Vec<_> = (0..200).map(|_| backoff.with_jitter(3, 0.5).as_secs_f64()).collect();
        assert!(delays.iter().all(|delay| (4.0..=8.0).contains(delay)), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay < 6.0) && delays.iter().any(|delay| *delay > 6.0));
    }
}
