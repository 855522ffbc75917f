//! `[limits]`: maximum size and minimum rate of a request body. A request whose announced length is too large
//! is refused before a backend gets any of it (RFC 9110 15.5.14). Without an announced length, Pingora counts the
//! bytes of the body, and the limit is checked at each part that is forwarded.

use std::time::{Duration, Instant};

use http::{HeaderMap, header};

use super::Verdict;
use crate::config::Limits;
use crate::reply::{Problem, Reply};
use crate::util::decimal::NotANumber;
use crate::util::min_rate::{MinRate, RateWatch, TooSlow};
use crate::util::{decimal, field_list};

/// Detail of the local reply to a body that is too long.
pub const TOO_LONG: &str = "the body is longer than limits.max_request_body_bytes allows";

/// Limits of a request body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit {
    max: u64,
    rate: MinRate,
}

impl From<&Limits> for BodyLimit {
    fn from(limits: &Limits) -> Self {
        let max = Some(limits.max_request_body_bytes).filter(|max| *max > 0);
        let timeout = limits.body_timeout_secs.duration();
        BodyLimit {
            max: max.unwrap_or(u64::MAX),
            rate: MinRate { timeout, bytes_per_sec: limits.min_body_bytes_per_sec },
        }
    }
}

impl BodyLimit {
    /// Refuses a request whose announced length is too large. An earlier check has refused a Content-Length
    /// that is not a number.
    pub fn check(&self, request: &HeaderMap) -> Verdict {
        let length = request.get(header::CONTENT_LENGTH).and_then(|length| {
            match decimal::strict(length.as_bytes()) {
                Ok(length) => Some(length),
                // A number that does not fit into 64 bits is above every limit.
                Err(NotANumber::TooLarge) => Some(u64::MAX),
                Err(NotANumber::NotDigits | NotANumber::LeadingZero) => None,
            }
        });
        if self.max == u64::MAX || length.is_none_or(|length| length <= self.max) {
            return Verdict::Continue(());
        }
        let reply = Reply::new(Problem::ContentTooLarge, TOO_LONG);
        // A client that waits for 100 (Continue) does not send the body after this reply, so the gateway would
        // mistake the client's next request for the body.
        Verdict::Reply(if field_list::has(request, header::EXPECT, "100-continue") {
            reply.and_close()
        } else {
            reply
        })
    }

    /// Returns true if a body that has `bytes` bytes so far is within the limit.
    pub fn allows(&self, bytes: usize) -> bool {
        u64::try_from(bytes).is_ok_and(|bytes| bytes <= self.max)
    }

    /// Returns the maximum time that the gateway waits for the next part of a body.
    pub fn timeout(&self) -> Duration {
        self.rate.timeout
    }

    /// Starts to watch a body at `now`. `waited` is the time that the gateway has waited for the client so far;
    /// `None` if unknown.
    pub fn begin(&self, waited: Option<Duration>, now: Instant) -> Arrival {
        Arrival {
            watch: RateWatch::new(self.rate),
            waited: waited.unwrap_or_default(),
            last: now,
            was_late: false,
        }
    }
}

/// Progress of a request body.
#[derive(Debug)]
pub struct Arrival {
    watch: RateWatch,
    /// Time that the gateway had waited for the client when the last part came.
    waited: Duration,
    /// Time at which the last part came.
    last: Instant,
    was_late: bool,
}

impl Arrival {
    /// Returns how long the gateway may wait for the next part.
    pub fn left(&self) -> Duration {
        self.watch.left()
    }

    /// Records a part of `bytes` bytes that came at `now`. `waited` is the time that the gateway has waited for
    /// the client so far.
    ///
    /// Over HTTP/2, `waited` is not known (`None`), because the backend may have been the slow side. Then the
    /// time since the last part counts. One late part is forgiven, and another one only after the client has
    /// caught up with the minimum rate. A client that was waiting for the backend catches up at once, because
    /// it has a full window of data to send.
    ///
    /// # Errors
    /// Returns an error if the part came too late.
    pub fn on_data(&mut self, bytes: usize, waited: Option<Duration>, now: Instant) -> Result<(), TooSlow> {
        let since = now.saturating_duration_since(self.last);
        self.last = now;
        let Some(waited) = waited else {
            let in_time = self.watch.on_data(bytes, since);
            let was_late = self.was_late && !self.watch.is_full();
            self.was_late = was_late || in_time.is_err();
            return if was_late { in_time } else { Ok(()) };
        };
        let this_time = waited.saturating_sub(self.waited);
        self.waited = waited;
        self.watch.on_data(bytes, this_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(toml: &str) -> BodyLimit {
        BodyLimit::from(&toml::from_str::<Limits>(toml).unwrap())
    }

    #[test]
    fn content_length_above_limit_gets_413() {
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
    fn body_without_content_length_is_counted() {
        let ten = limit("max_request_body_bytes = 10");
        assert!(ten.allows(0) && ten.allows(10) && !ten.allows(11));
        assert!(limit("max_request_body_bytes = 0").allows(usize::MAX));
    }

    const SLOW: &str = "body_timeout_secs = 10\nmin_body_bytes_per_sec = 100";

    #[test]
    fn known_client_wait_alone_counts_against_the_timeout() {
        let (start, secs) = (Instant::now(), Duration::from_secs);
        let mut arrival = limit(SLOW).begin(Some(secs(5)), start);
        // An hour passed, and the gateway waited 4 s of it for the client.
        arrival.on_data(100, Some(secs(9)), start + secs(3600)).unwrap();
        assert_eq!(arrival.left(), secs(7));
        assert_eq!(arrival.on_data(100, Some(secs(17)), start + secs(3608)), Err(TooSlow));
    }

    #[test]
    fn unknown_wait_is_forgiven_once_until_client_is_at_rate() {
        let (start, secs) = (Instant::now(), Duration::from_secs);
        let mut arrival = limit(SLOW).begin(None, start);
        arrival.on_data(1, None, start + secs(29)).unwrap();
        assert_eq!(arrival.on_data(1, None, start + secs(58)), Err(TooSlow));

        // Here the backend was slow: the client had more to send all the time.
        let mut arrival = limit(SLOW).begin(None, start);
        for n in 1..10 {
            arrival.on_data(100, None, start + secs(29 * n)).unwrap();
            for _ in 0..10 {
                arrival.on_data(100, None, start + secs(29 * n)).unwrap();
            }
        }
    }
}
