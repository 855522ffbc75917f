//! How much body a request may have, and how slowly it may come: `[limits]`. What is announced as too long is
//! refused before a backend hears of it (RFC 9110 15.5.14); what is not announced is counted as it passes.

use std::time::{Duration, Instant};

use http::{HeaderMap, header};

use super::Verdict;
use crate::config::Limits;
use crate::reply::{Problem, Reply};
use crate::util::decimal::NotANumber;
use crate::util::min_rate::{Pace, Terms, TooSlow};
use crate::util::{decimal, field_list};

/// What a body that is too long is answered with.
pub const TOO_LONG: &str = "the body is longer than limits.max_request_body_bytes allows";

/// The bounds of a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit {
    max: u64,
    terms: Terms,
}

impl From<&Limits> for BodyLimit {
    fn from(limits: &Limits) -> Self {
        let max = Some(limits.max_request_body_bytes).filter(|max| *max > 0);
        let patience = limits.body_timeout_secs.duration();
        BodyLimit {
            max: max.unwrap_or(u64::MAX),
            terms: Terms { patience, bytes_per_sec: limits.min_body_bytes_per_sec },
        }
    }
}

impl BodyLimit {
    /// Refuses a body that is announced as too long. What is no number has been refused before.
    pub fn check(&self, request: &HeaderMap) -> Verdict {
        let length = request.get(header::CONTENT_LENGTH).and_then(|length| {
            match decimal::strict(length.as_bytes()) {
                Ok(length) => Some(length),
                // A number that is too large for us is too large.
                Err(NotANumber::TooLarge) => Some(u64::MAX),
                Err(NotANumber::NotDigits | NotANumber::LeadingZero) => None,
            }
        });
        if self.max == u64::MAX || length.is_none_or(|length| length <= self.max) {
            return Verdict::Continue(());
        }
        let reply = Reply::new(Problem::ContentTooLarge, TOO_LONG);
        // Who waits for 100 (Continue) does not send the body, and what it sends next could be taken for it.
        Verdict::Reply(if field_list::has(request, header::EXPECT, "100-continue") {
            reply.and_close()
        } else {
            reply
        })
    }

    /// Whether a body of which so many bytes have come is not too long yet.
    pub fn allows(&self, bytes: usize) -> bool {
        u64::try_from(bytes).is_ok_and(|bytes| bytes <= self.max)
    }

    /// The longest that it is waited for.
    pub fn patience(&self) -> Duration {
        self.terms.patience
    }

    /// A body that begins to come now; `waited` is how long has been waited for its client so far, where that is
    /// known.
    pub fn begin(&self, waited: Option<Duration>, now: Instant) -> Arrival {
        Arrival {
            pace: Pace::new(self.terms),
            waited: waited.unwrap_or_default(),
            last: now,
            was_late: false,
        }
    }
}

/// A request's body as it comes.
#[derive(Debug)]
pub struct Arrival {
    pace: Pace,
    /// How long has been waited for the client, when the last part came.
    waited: Duration,
    /// When that was.
    last: Instant,
    was_late: bool,
}

impl Arrival {
    /// How long the next part may be waited for.
    pub fn left(&self) -> Duration {
        self.pace.left()
    }

    /// A part has come. `waited` is how long has been waited for its client so far.
    ///
    /// Over HTTP/2 nobody knows that: it may have been the backend that took no more. Then the time since the last
    /// part is taken for it, and it is forgiven once until the client is back at its rate. A client that had to wait
    /// has its window full of what comes next, and is.
    ///
    /// # Errors
    /// Where it has come too late.
    pub fn came(&mut self, bytes: usize, waited: Option<Duration>, now: Instant) -> Result<(), TooSlow> {
        let since = now.saturating_duration_since(self.last);
        self.last = now;
        let Some(waited) = waited else {
            let in_time = self.pace.came(bytes, since);
            let was_late = self.was_late && !self.pace.is_full();
            self.was_late = was_late || in_time.is_err();
            return if was_late { in_time } else { Ok(()) };
        };
        let this_time = waited.saturating_sub(self.waited);
        self.waited = waited;
        self.pace.came(bytes, this_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(toml: &str) -> BodyLimit {
        BodyLimit::from(&toml::from_str::<Limits>(toml).unwrap())
    }

    #[test]
    fn what_is_announced_as_too_long_is_refused() {
        let status = |toml: &str, length: &str| {
            let request = HeaderMap::from_iter([(header::CONTENT_LENGTH, length.parse().unwrap())]);
            match limit(toml).check(&request) {
                Verdict::Continue(()) => 200,
                Verdict::Reply(reply) => reply.status(),
            }
        };
        let ten = "max_request_body_bytes = 10";
        for (toml, length, expected) in [
            (ten, "0", 200),
            (ten, "10", 200),
            (ten, "11", 413),
            (ten, "0011", 200),
            (ten, "99999999999999999999999999", 413),
            (ten, "what", 200),
            (ten, "", 200),
            ("max_request_body_bytes = 0", "99999999999999999999999999", 200),
            ("", "10485760", 200),
            ("", "10485761", 413),
        ] {
            assert_eq!(status(toml, length), expected, "{toml} {length}");
        }
        assert!(matches!(limit(ten).check(&HeaderMap::new()), Verdict::Continue(())));
    }

    #[test]
    fn what_is_not_announced_is_counted() {
        let ten = limit("max_request_body_bytes = 10");
        assert!(ten.allows(0) && ten.allows(10) && !ten.allows(11));
        assert!(limit("max_request_body_bytes = 0").allows(usize::MAX));
    }

    const SLOW: &str = "body_timeout_secs = 10\nmin_body_bytes_per_sec = 100";

    #[test]
    fn only_time_spent_waiting_for_the_client_counts_where_it_is_known() {
        let (start, secs) = (Instant::now(), Duration::from_secs);
        let mut arrival = limit(SLOW).begin(Some(secs(5)), start);
        // An hour went by, of which 4 s were the client's.
        arrival.came(100, Some(secs(9)), start + secs(3600)).unwrap();
        assert_eq!(arrival.left(), secs(7));
        assert_eq!(arrival.came(100, Some(secs(17)), start + secs(3608)), Err(TooSlow));
    }

    #[test]
    fn where_it_is_not_a_wait_is_forgiven_once_until_the_client_is_back_at_its_rate() {
        let (start, secs) = (Instant::now(), Duration::from_secs);
        let mut arrival = limit(SLOW).begin(None, start);
        arrival.came(1, None, start + secs(29)).unwrap();
        assert_eq!(arrival.came(1, None, start + secs(58)), Err(TooSlow));

        // It was the backend: the client had more to send all the time.
        let mut arrival = limit(SLOW).begin(None, start);
        for n in 1..10 {
            arrival.came(100, None, start + secs(29 * n)).unwrap();
            for _ in 0..10 {
                arrival.came(100, None, start + secs(29 * n)).unwrap();
            }
        }
    }
}
