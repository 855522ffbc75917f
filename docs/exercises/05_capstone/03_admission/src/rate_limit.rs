//! Rate limit: a number of requests for each client in a window of time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::Policy;
use crate::reply::Reply;

/// Maximum number of clients that are counted. A client costs about 50 bytes.
const MOST_CLIENTS: usize = 65_536;

/// Counters of all clients: the begin of each window, and its requests. A reload changes the rules only.
#[derive(Default)]
pub struct RateLimiter(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl RateLimiter {
    /// Counts a request of `client`.
    ///
    /// # Errors
    /// Returns the reply if this client has to wait.
    pub fn check(&self, client: IpAddr, policy: &Policy, now: Instant) -> Result<(), Reply> {
        let client = match client {
            // Each client over IPv6 has at least a /64, so all of it is one client.
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
            IpAddr::V4(_) => client,
        };
        let mut clients = self.0.lock();
        if clients.len() >= MOST_CLIENTS && !clients.contains_key(&client) {
            // All clients begin anew. The table must not grow with the number of addresses that attackers have.
            clients.clear();
        }
        let window = Duration::from_secs(policy.rate_limit_window_secs.into());
        let (began, requests) = clients.entry(client).or_insert((now, 0));
        if now.duration_since(*began) >= window {
            (*began, *requests) = (now, 0);
        }
        *requests = requests.saturating_add(1);
        if *requests <= policy.rate_limit_requests {
            return Ok(());
        }
        let left = window.saturating_sub(now.duration_since(*began)).as_secs() + 1;
        Err(Reply { retry_after: left, ..Reply::new(429, "too many requests") })
    }
}
