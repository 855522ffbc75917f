//! How much a client may ask: so many requests in a window that opens with the client's first request.
//! The request after the last one is refused with 429 until the window has passed.
//!
//! Counting is exact, per client, in bounded memory: see [`Counters`]. Both kinds of answer tell the client
//! where it stands (the `RateLimit` fields of draft-ietf-httpapi-ratelimit-headers).

mod counters;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::ResponseHeader;

pub use counters::Counters;

use super::Verdict;
use crate::config::{RateLimit, RateLimitKey};
use crate::reply::{Problem, Reply};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The compiled `[rate_limit]` table.
pub struct RateLimiter {
    counters: Arc<Counters>,
    /// What is counted together.
    scope: String,
    requests: u32,
    window_ms: u64,
    policy: HeaderValue,
}

/// Where a client stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests that it has left in this window.
    pub remaining: u32,
    /// Seconds until the window has passed, rounded up.
    pub reset_secs: u64,
    policy: HeaderValue,
}

impl RateLimiter {
    /// A limiter that counts in `counters` for all requests of `scope` together.
    pub fn new(config: &RateLimit, scope: String, counters: Arc<Counters>) -> Self {
        let (requests, window) = (config.requests.get(), config.window_secs);
        let RateLimitKey::ClientIp = config.key;
        let policy = format!("\"default\";q={requests};w={}", window.get());
        RateLimiter {
            counters,
            scope,
            requests,
            window_ms: window.get() * 1000,
            policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Counts a request of `client`. Clients without an address (on a Unix socket) count as one.
    pub fn check(&self, client: Option<IpAddr>, now: Instant) -> Verdict<Quota> {
        let client = client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), one_customer);
        let key = self.counters.key(&self.scope, client);
        let count = self.counters.count(key, self.requests, self.window_ms, now);
        let quota = Quota {
            remaining: self.requests - count.used.min(self.requests),
            reset_secs: count.reset_ms.div_ceil(1000),
            policy: self.policy.clone(),
        };
        if count.allowed {
            return Verdict::Continue(quota);
        }
        let detail = format!("{} requests in {} s are used up", self.requests, self.window_ms / 1000);
        let reply = Reply::new(Problem::RateLimited, detail)
            .field(header::RETRY_AFTER, HeaderValue::from(quota.reset_secs))
            .field(RATELIMIT, quota.field())
            .field(RATELIMIT_POLICY, quota.policy);
        Verdict::Reply(reply)
    }
}

impl Quota {
    /// Tells the client, on a response that it gets.
    ///
    /// # Errors
    /// Where Pingora refuses a field, which it does not do for these.
    pub fn on_response(&self, response: &mut ResponseHeader) -> Result<()> {
        response.insert_header(RATELIMIT, self.field())?;
        response.insert_header(RATELIMIT_POLICY, self.policy.clone())
    }

    fn field(&self) -> HeaderValue {
        let text = format!("\"default\";r={};t={}", self.remaining, self.reset_secs);
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// An IPv6 customer is given a whole /64 and could change addresses at will; it counts as one client.
fn one_customer(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limiter(toml: &str, scope: &str, counters: &Arc<Counters>) -> RateLimiter {
        let config: RateLimit = toml::from_str(toml).unwrap();
        RateLimiter::new(&config, scope.to_owned(), counters.clone())
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn allowed(limiter: &RateLimiter, client: Option<IpAddr>, now: Instant) -> bool {
        matches!(limiter.check(client, now), Verdict::Continue(_))
    }

    #[test]
    fn exactly_the_request_after_the_last_one_is_refused() {
        let counters = Arc::new(Counters::new());
        let limiter = limiter("requests = 100\nwindow_secs = 60", "", &counters);
        let start = Instant::now();
        for n in 1..=100 {
            assert!(allowed(&limiter, ip("192.0.2.1"), start), "request {n}");
        }
        for _ in 0..50 {
            assert!(!allowed(&limiter, ip("192.0.2.1"), start + Duration::from_millis(59_999)));
        }
        assert!(allowed(&limiter, ip("192.0.2.2"), start), "another client is not affected");
        assert!(allowed(&limiter, ip("192.0.2.1"), start + Duration::from_secs(60)), "the window has passed");
    }

    #[test]
    fn both_answers_say_where_the_client_stands() {
        let counters = Arc::new(Counters::new());
        let limiter = limiter("requests = 2\nwindow_secs = 10", "", &counters);
        let start = Instant::now();
        let Verdict::Continue(quota) = limiter.check(ip("192.0.2.1"), start) else { panic!("refused") };
        let mut response = ResponseHeader::build(200, None).unwrap();
        quota.on_response(&mut response).unwrap();
        assert_eq!(response.headers["ratelimit"], "\"default\";r=1;t=10");
        assert_eq!(response.headers["ratelimit-policy"], "\"default\";q=2;w=10");

        limiter.check(ip("192.0.2.1"), start);
        let later = start + Duration::from_millis(7_500);
        let Verdict::Reply(reply) = limiter.check(ip("192.0.2.1"), later) else { panic!("allowed") };
        assert_eq!(reply.status(), 429);
        assert_eq!(reply.fields()["retry-after"], "3");
        assert_eq!(reply.fields()["ratelimit"], "\"default\";r=0;t=3");
    }

    #[test]
    fn ipv6_counts_by_64_bits_and_scopes_for_themselves() {
        let counters = Arc::new(Counters::new());
        let toml = "requests = 1\nwindow_secs = 60";
        let (here, there) = (limiter(toml, "here", &counters), limiter(toml, "there", &counters));
        let now = Instant::now();
        assert!(allowed(&here, ip("2001:db8::1"), now));
        assert!(!allowed(&here, ip("2001:db8::ffff"), now));
        assert!(allowed(&here, ip("2001:db8:0:1::1"), now));
        assert!(allowed(&there, ip("2001:db8::1"), now));
        assert!(allowed(&here, None, now));
        assert!(!allowed(&here, None, now));
    }
}
