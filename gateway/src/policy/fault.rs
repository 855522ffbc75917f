//! Fault injection: delays or aborts a share of a route's requests on purpose, so that the operator sees how
//! clients cope.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::config::{FaultInjection, Percent};
use crate::reply::{Problem, Reply};

/// The compiled `fault` table.
pub struct Fault {
    delay: Duration,
    delay_percent: u8,
    abort: Option<StatusCode>,
    abort_percent: u8,
}

impl Fault {
    /// Compiles the table. Returns `None` if both percentages are zero.
    pub fn new(config: FaultInjection) -> Option<Self> {
        let nothing = Percent::default();
        (config.delay_percent > nothing || config.abort_percent > nothing).then(|| Fault {
            delay: Duration::from_millis(config.delay_ms.into()),
            delay_percent: config.delay_percent.get(),
            abort: StatusCode::from_u16(config.abort_status).ok(),
            abort_percent: config.abort_percent.get(),
        })
    }

    /// Returns the delay of a request, or `None` for no delay. `draw` is a random number below 100.
    pub fn delay(&self, draw: u8) -> Option<Duration> {
        (draw < self.delay_percent).then_some(self.delay)
    }

    /// Returns the local reply that aborts a request; `None` if the request is not aborted. `draw` is a random
    /// number below 100.
    pub fn abort(&self, draw: u8) -> Option<Reply> {
        let status = self.abort.filter(|_| draw < self.abort_percent)?;
        let detail = "this route returns this response on purpose (fault injection)";
        Some(Reply::new(Problem::FaultInjected, detail).with_status(status))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delay = format!("{}% delayed by {:?}", self.delay_percent, self.delay);
        let status = self.abort.map(|status| status.as_u16());
        let abort = status.map(|status| format!("{}% answered with {status}", self.abort_percent));
        let abort = abort.filter(|_| self.abort_percent > 0);
        let parts = [(self.delay_percent > 0).then_some(delay), abort];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_and_abort_hit_their_share_of_requests() {
        let config = FaultInjection {
            delay_ms: 100,
            delay_percent: Percent::try_from(30).unwrap(),
            abort_status: 503,
            abort_percent: Percent::try_from(10).unwrap(),
        };
        let fault = Fault::new(config).unwrap();
        assert_eq!((0..100).filter_map(|draw| fault.delay(draw)).count(), 30);
        assert_eq!(fault.delay(0), Some(Duration::from_millis(100)));
        let replies: Vec<u16> =
            (0..100).filter_map(|draw| fault.abort(draw)).map(|reply| reply.status()).collect();
        assert_eq!(replies, [503; 10]);
        assert!(Fault::new(FaultInjection::default()).is_none());
    }
}
