//! When a certificate is ordered: plain functions of time.

use std::time::{Duration, SystemTime};

use super::{Certificate, Wanted};

/// How fast things go. Tests are in more of a hurry than servers that others share.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After the first failure, an order is tried again in this time, and after each more in twice as long.
    pub retry_first: Duration,
    /// But never later than this, unless the server asks for it.
    pub retry_most: Duration,
    /// How long the server may take to check the names, and once more to sign.
    pub patience: Duration,
    /// How often it is asked at most whether it is done, where it does not say itself.
    pub poll_most: Duration,
    /// How many orders are made at once.
    pub at_once: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            retry_first: Duration::from_secs(60),
            retry_most: Duration::from_secs(6 * 60 * 60),
            patience: Duration::from_secs(5 * 60),
            poll_most: Duration::from_secs(10),
            at_once: 4,
        }
    }
}

/// The longest that a server can ask to be left alone: Let's Encrypt's longest limit counts a week.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Timing {
    /// How long to wait after the `failures`th failure in a row. `share`, from 0 to 1, is chance: it takes up to half
    /// of the time away, so that what failed together is not tried again together. The server may have asked
    /// for more (RFC 8555 6.6), and gets that and a little.
    pub fn after_failure(&self, failures: u32, share: f64, asked: Option<Duration>) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let wait = self.retry_first.saturating_mul(1 << doublings).min(self.retry_most);
        let wait = wait.mul_f64(1.0 - share / 2.0);
        let asked = asked.map(|asked| asked.min(LONGEST_WAIT).mul_f64(1.0 + share / 10.0));
        wait.max(asked.unwrap_or_default())
    }
}

/// When `certificate` is renewed: when a third of its life is left, and up to a tenth of that third earlier.
/// How much earlier, its names and its end say: what was issued together is not renewed together, and a restart
/// changes nothing.
pub(super) fn renewal(certificate: &Certificate) -> SystemTime {
    let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    let third = life / 3;
    let early = third.mul_f64(share_of(certificate) / 10.0);
    certificate.not_after.checked_sub(third + early).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Wanted {
    /// Whether there is nothing to do about this certificate, which is there. One that is for more names will do:
    /// its renewal will be without them.
    pub(super) fn is_served_by(&self, certificate: &Certificate, now: SystemTime) -> bool {
        certificate.names.is_superset(&self.names) && renewal(certificate) > now
    }
}

/// A number from 0 to 1 that looks like chance and is always the same for the same certificate.
fn share_of(certificate: &Certificate) -> f64 {
    let mut text = String::new();
    for name in &certificate.names {
        text.push_str(name);
        text.push('\n');
    }
    let end = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let [first, second, ..] = openssl::sha::sha256(format!("{text}{}", end.as_secs()).as_bytes());
    f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn certificate(name: &str, life: Duration) -> Certificate {
        let not_before = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let names = BTreeSet::from([name.to_owned()]);
        Certificate { not_before, not_after: not_before + life, names }
    }

    #[test]
    fn a_certificate_is_renewed_with_a_third_of_its_life_left() {
        for days in [6, 47, 90, 398] {
            for name in ["a.example", "b.example", "c.example"] {
                let certificate = certificate(name, days * DAY);
                let left = certificate.not_after.duration_since(renewal(&certificate)).unwrap();
                let third = days * DAY / 3;
                assert!(left >= third && left <= third.mul_f64(1.1), "{days} days, {name}: {left:?}");
            }
        }
    }

    #[test]
    fn what_is_issued_together_is_renewed_at_different_times_and_always_at_the_same() {
        let names: Vec<String> = (0..100).map(|i| format!("{i}.example")).collect();
        let renewals = || names.iter().map(|name| renewal(&certificate(name, 90 * DAY)));
        assert_eq!(renewals().collect::<Vec<_>>(), renewals().collect::<Vec<_>>());
        assert!(renewals().collect::<BTreeSet<_>>().len() > 90);
        let (first, last) = (renewals().min().unwrap(), renewals().max().unwrap());
        assert!(last.duration_since(first).unwrap() > 2 * DAY, "of the three days that there are");
    }

    #[test]
    fn a_certificate_that_ends_before_it_begins_is_due() {
        let mut odd = certificate("a.example", DAY);
        odd.not_before = odd.not_after + DAY;
        assert_eq!(renewal(&odd), odd.not_after);
    }

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let pace = Timing::default();
        let minutes = |failures| pace.after_failure(failures, 0.0, None).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 9, 10, 1000].map(minutes), [1, 2, 4, 8, 256, 360, 360]);
        assert_eq!(pace.after_failure(1, 1.0, None), Duration::from_secs(30));
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_asks() {
        let pace = Timing::default();
        let hour = Duration::from_secs(3600);
        assert_eq!(pace.after_failure(1, 0.0, Some(hour)), hour);
        assert!(pace.after_failure(1, 0.9, Some(hour)) > hour, "not all of them at that very moment");
        assert_eq!(pace.after_failure(20, 0.0, Some(hour)), pace.retry_most);
        assert_eq!(pace.after_failure(1, 0.0, Some(Duration::MAX)), LONGEST_WAIT);
    }
}
