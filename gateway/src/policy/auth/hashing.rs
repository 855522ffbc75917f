//! Limits how many passwords are hashed at a time. Each hash costs tens of milliseconds of a processor, and an
//! attacker may send guesses as fast as the network allows. Therefore at most half of the processors hash
//! passwords. Further passwords wait in a common queue for at most two seconds.
//!
//! The passwords of a client first wait in a queue for this client, and only the front of that queue enters the
//! common queue. An attacker therefore waits for its own guesses, while another client waits only for one guess
//! of the attacker.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::client_network;

/// Maximum number of passwords that are hashed or wait; each has a place. With a smaller limit, a few addresses
/// could take all places. A waiting password needs some hundred bytes, less than its connection.
const MAX_PLACES: usize = 1024;
/// Maximum number of these places for one client. A browser opens six connections at once, and an office has
/// several people.
const MAX_OF_ONE: usize = 8;
/// Maximum time that a password waits.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The only limiter of the process, because all passwords share the processors.
pub(super) static HASHING: LazyLock<Arc<Hashing>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Hashing::new(processors.div_ceil(2), MAX_PLACES, TIMEOUT))
});

pub(super) struct Hashing {
    running: Arc<Semaphore>,
    /// Maximum number of passwords of one client that are hashed or wait in the common queue.
    running_of_one: usize,
    permits: Arc<Semaphore>,
    /// Clients with at least one place. The map is therefore never larger than the number of places.
    clients: Mutex<HashMap<Option<IpAddr>, ClientShare>>,
    timeout: Duration,
}

struct ClientShare {
    running: Arc<Semaphore>,
    permits: usize,
}

/// Reason why a password cannot be hashed now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overloaded {
    /// The client has the maximum number of places of one client, or has waited too long for its own passwords.
    TooManyOfOne,
    /// No place is free, or the wait for a processor was too long.
    TooMany,
}

/// Place of a password, under the common limit and the client's limit. Dropping the value frees the place.
struct WaitingPermit {
    hashing: Arc<Hashing>,
    of: Option<IpAddr>,
    _among_all: OwnedSemaphorePermit,
}

/// Permission to hash one password. Dropping the value ends the permission and frees the place.
pub(super) struct HashPermit {
    _running: OwnedSemaphorePermit,
    _running_of_one: OwnedSemaphorePermit,
    _place: WaitingPermit,
}

impl Hashing {
    fn new(at_once: usize, permits: usize, timeout: Duration) -> Self {
        Hashing {
            running: Arc::new(Semaphore::new(at_once)),
            running_of_one: at_once.div_ceil(2),
            permits: Arc::new(Semaphore::new(permits)),
            clients: Mutex::default(),
            timeout,
        }
    }

    /// Waits until a password of the client at this address may be hashed. Dropping the future frees the place
    /// of the password.
    ///
    /// # Errors
    /// Returns an error if too many passwords wait or the wait is too long.
    pub(super) async fn turn(self: &Arc<Self>, client: Option<IpAddr>) -> Result<HashPermit, Overloaded> {
        let (place, own) = self.place(client.map(client_network))?;
        let mut is_in_front = false;
        let turn = async {
            let own = own.acquire_owned().await.ok()?;
            is_in_front = true;
            Some((own, self.running.clone().acquire_owned().await.ok()?))
        };
        match timeout(self.timeout, turn).await {
            Ok(Some((own, running))) => {
                Ok(HashPermit { _running: running, _running_of_one: own, _place: place })
            }
            _ if is_in_front => Err(Overloaded::TooMany),
            _ => Err(Overloaded::TooManyOfOne),
        }
    }

    /// Returns a place for a password of the client `of`, and the queue for this client.
    fn place(self: &Arc<Self>, of: Option<IpAddr>) -> Result<(WaitingPermit, Arc<Semaphore>), Overloaded> {
        let mut clients = self.clients.lock();
        if clients.get(&of).is_some_and(|client| client.permits >= MAX_OF_ONE) {
            return Err(Overloaded::TooManyOfOne);
        }
        let among_all = self.permits.clone().try_acquire_owned().map_err(|_| Overloaded::TooMany)?;
        let new = || ClientShare { running: Arc::new(Semaphore::new(self.running_of_one)), permits: 0 };
        let client = clients.entry(of).or_insert_with(new);
        client.permits += 1;
        Ok((WaitingPermit { hashing: self.clone(), of, _among_all: among_all }, client.running.clone()))
    }
}

impl Drop for WaitingPermit {
    fn drop(&mut self) {
        let mut clients = self.hashing.clients.lock();
        if let Some(client) = clients.get_mut(&self.of) {
            client.permits -= 1;
            if client.permits == 0 {
                clients.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    fn of(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn hashing(at_once: usize, permits: usize) -> Arc<Hashing> {
        Arc::new(Hashing::new(at_once, permits, TIMEOUT))
    }

    #[tokio::test]
    async fn password_beyond_all_places_is_refused() {
        let hashing = hashing(1, 2);
        let first = hashing.turn(of(1)).await.ok().unwrap();
        let mut waiting = pin!(hashing.turn(of(2)));
        assert!(poll!(&mut waiting).is_pending());
        assert_eq!(hashing.turn(of(3)).await.err(), Some(Overloaded::TooMany), "nobody else may wait");
        drop(first);
        assert!(waiting.await.is_ok());
        assert!(hashing.clients.lock().is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn flooding_client_delays_others_by_one_password() {
        let hashing = hashing(1, MAX_PLACES);
        let running = hashing.turn(of(1)).await.ok().unwrap();
        let mut queue: Vec<_> = (1..MAX_OF_ONE).map(|_| Box::pin(hashing.turn(of(1)))).collect();
        for waiting in &mut queue {
            assert!(poll!(waiting).is_pending());
        }
        assert_eq!(hashing.turn(of(1)).await.err(), Some(Overloaded::TooManyOfOne));
        let mut another = pin!(hashing.turn(of(2)));
        assert!(poll!(&mut another).is_pending());
        drop(running);
        // The other client may come before the guess that has just reached the front of the attacker's queue.
        assert!(another.await.is_ok());
    }

    #[tokio::test]
    async fn hundred_flooding_addresses_leave_places_to_others() {
        let hashing = hashing(1, MAX_PLACES);
        let running = hashing.turn(of(0)).await.ok().unwrap();
        let mut queue: Vec<_> = (1..=100)
            .flat_map(|last| std::iter::repeat_n(last, MAX_OF_ONE))
            .map(|last| Box::pin(hashing.turn(of(last))))
            .collect();
        for waiting in &mut queue {
            assert!(poll!(waiting).is_pending());
        }
        let mut another = pin!(hashing.turn(of(101)));
        assert!(poll!(&mut another).is_pending(), "it waits, and is not turned away");
        drop((running, queue));
        assert!(another.await.is_ok());
    }

    #[tokio::test]
    async fn ipv6_network_counts_as_one_client() {
        let hashing = hashing(1, MAX_PLACES);
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let mut queue: Vec<_> =
            (0..MAX_OF_ONE).map(|n| Box::pin(hashing.turn(address(&format!("2001:db8::{n}"))))).collect();
        let first = queue[0].as_mut().await.ok();
        for waiting in &mut queue[1..] {
            assert!(poll!(waiting).is_pending());
        }
        assert_eq!(hashing.turn(address("2001:db8::ffff")).await.err(), Some(Overloaded::TooManyOfOne));
        drop(first);
        assert!(hashing.turn(address("2001:db8:0:1::1")).await.is_ok());
    }

    #[tokio::test]
    async fn dropped_wait_gives_its_place_back() {
        let hashing = hashing(1, MAX_PLACES);
        let running = hashing.turn(of(1)).await.ok().unwrap();
        let mut queue: Vec<_> = (1..MAX_OF_ONE).map(|_| Box::pin(hashing.turn(of(1)))).collect();
        for waiting in &mut queue {
            assert!(poll!(waiting).is_pending());
        }
        drop(queue);
        drop(running);
        assert!(hashing.turn(of(1)).await.is_ok());
        assert!(hashing.clients.lock().is_empty());
    }

    #[tokio::test]
    async fn wait_ends_with_an_error_after_the_timeout() {
        let hashing = Arc::new(Hashing::new(1, MAX_PLACES, Duration::from_millis(1)));
        let _held = hashing.turn(of(1)).await.ok().unwrap();
        assert_eq!(hashing.turn(of(1)).await.err(), Some(Overloaded::TooManyOfOne), "it waits for itself");
        assert_eq!(hashing.turn(of(2)).await.err(), Some(Overloaded::TooMany));
    }
}
