//! Times at which certificates are ordered, as pure functions of time.

use std::time::{Duration, SystemTime};

use super::{Certificate, PlannedCertificate};
use crate::util::backoff::Backoff;

/// Intervals and timeouts of orders. Tests use shorter times than production servers allow.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Waits after failures of an order, unless the server asks for a longer one.
    pub retry: Backoff,
    /// Timeout for the validation of the names, and again for the issue of the certificate.
    pub timeout: Duration,
    /// Maximum interval between two polls of an order, unless the server asks for a longer interval.
    pub poll_most: Duration,
    /// Maximum number of simultaneous orders.
    pub at_once: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            retry: Backoff { first: Duration::from_secs(60), most: Duration::from_secs(6 * 60 * 60) },
            timeout: Duration::from_secs(5 * 60),
            poll_most: Duration::from_secs(10),
            at_once: 4,
        }
    }
}

/// Maximum wait that a server can ask for: a week, because the longest limit of Let's Encrypt is for a week.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Timing {
    /// Returns the wait after the `failures`th failure in a row. `share` is a random number from 0 to 1, which
    /// removes up to half of the wait. So orders that failed together are not repeated together. If the server asked
    /// for a longer wait (RFC 8555 6.6), the result is that wait plus up to a tenth.
    pub fn after_failure(&self, failures: u32, share: f64, asked: Option<Duration>) -> Duration {
        let wait = self.retry.delay(failures).mul_f64(1.0 - share / 2.0);
        let asked = asked.map(|asked| asked.min(LONGEST_WAIT).mul_f64(1.0 + share / 10.0));
        wait.max(asked.unwrap_or_default())
    }
}

/// Returns the time at which `certificate` is renewed: when a third of its lifetime is left, or up to a tenth
/// of that third earlier. The exact point depends on the certificate's names and end. Certificates that were
/// issued together are thus not renewed together, and a restart does not change the point.
pub(super) fn renewal(certificate: &Certificate) -> SystemTime {
    let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    let third = life / 3;
    let early = third.mul_f64(share_of(certificate) / 10.0);
    certificate.not_after.checked_sub(third + early).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl PlannedCertificate {
    /// Returns true if `certificate` is valid for the planned names and its renewal is not due. A certificate may
    /// have more names; its renewal leaves them out.
    pub(super) fn is_served_by(&self, certificate: &Certificate, now: SystemTime) -> bool {
        certificate.names.is_superset(&self.names) && renewal(certificate) > now
    }
}

/// Returns a number from 0 to 1 that looks random, but is always the same for the same certificate.
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
    fn certificate_is_renewed_with_a_third_of_lifetime_left() {
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
    fn certificates_issued_together_are_renewed_apart() {
        let names: Vec<String> = (0..100).map(|i| format!("{i}.example")).collect();
        let renewals = || names.iter().map(|name| renewal(&certificate(name, 90 * DAY)));
        assert_eq!(renewals().collect::<Vec<_>>(), renewals().collect::<Vec<_>>());
        assert!(renewals().collect::<BTreeSet<_>>().len() > 90);
        let (first, last) = (renewals().min().unwrap(), renewals().max().unwrap());
        assert!(last.duration_since(first).unwrap() > 2 * DAY, "of the three days that there are");
    }

    #[test]
    fn certificate_that_ends_before_its_start_is_due() {
        let mut odd = certificate("a.example", DAY);
        odd.not_before = odd.not_after + DAY;
        assert_eq!(renewal(&odd), odd.not_after);
    }

    #[test]
    fn wait_after_failures_doubles_up_to_the_maximum() {
        let timing = Timing::default();
        let minutes = |failures| timing.after_failure(failures, 0.0, None).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 9, 10, 1000].map(minutes), [1, 2, 4, 8, 256, 360, 360]);
        assert_eq!(timing.after_failure(1, 1.0, None), Duration::from_secs(30));
    }

    #[test]
    fn wait_that_the_server_asks_for_is_honoured() {
        let timing = Timing::default();
        let hour = Duration::from_secs(3600);
        assert_eq!(timing.after_failure(1, 0.0, Some(hour)), hour);
        assert!(timing.after_failure(1, 0.9, Some(hour)) > hour, "not all of them at that very moment");
        assert_eq!(timing.after_failure(20, 0.0, Some(hour)), timing.retry.most);
        assert_eq!(timing.after_failure(1, 0.0, Some(Duration::MAX)), LONGEST_WAIT);
    }
}
