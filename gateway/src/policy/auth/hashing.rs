//! How many passwords are hashed at once: each costs tens of milliseconds of a processor, and whoever guesses sends as
//! many as the network takes. Half of the processors at most, a queue before them, and nobody waits for long.
//!
//! One client has a share of that: its passwords queue behind each other first, and only the front of that queue
//! stands in the one that all share. So whoever guesses waits for itself, and another client for one guess of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::client_network;

/// So many may be hashed or wait. A place that waits is a future of some hundred bytes, which is less than its
/// connection: with fewer of them, a few addresses could keep everybody else from getting one.
const MAX_PLACES: usize = 1024;
/// So many of these one client may have: a browser opens six connections at once, an office has several people.
const MAX_OF_ONE: usize = 8;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// One for the process: it is the process's processors that are shared.
pub(super) static HASHING: LazyLock<Arc<Hashing>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Hashing::new(processors.div_ceil(2), MAX_PLACES, PATIENCE))
});

pub(super) struct Hashing {
    running: Arc<Semaphore>,
    /// How many of one client's may run, or stand in the queue of all.
    running_of_one: usize,
    places: Arc<Semaphore>,
    /// A client is there as long as it has a place, so there are never more of them than places.
    clients: Mutex<HashMap<Option<IpAddr>, Client>>,
    patience: Duration,
}

struct Client {
    running: Arc<Semaphore>,
    places: usize,
}

/// Why there is no turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overloaded {
    /// This client has as many places as one may have, or waits for itself.
    TooManyOfOne,
    /// So have all clients together.
    TooMany,
}

/// A place among all, and among those of its client; it is given back when this is dropped.
struct WaitingPermit {
    hashing: Arc<Hashing>,
    of: Option<IpAddr>,
    _among_all: OwnedSemaphorePermit,
}

/// The right to hash one password, until it is dropped.
pub(super) struct HashPermit {
    _running: OwnedSemaphorePermit,
    _running_of_one: OwnedSemaphorePermit,
    _place: WaitingPermit,
}

impl Hashing {
    fn new(at_once: usize, places: usize, patience: Duration) -> Self {
        Hashing {
            running: Arc::new(Semaphore::new(at_once)),
            running_of_one: at_once.div_ceil(2),
            places: Arc::new(Semaphore::new(places)),
            clients: Mutex::default(),
            patience,
        }
    }

    /// Waits for a turn of the client at this address. Whoever does not wait any more has no place any more.
    ///
    /// # Errors
    /// Where there are too many.
    pub(super) async fn turn(self: &Arc<Self>, client: Option<IpAddr>) -> Result<HashPermit, Overloaded> {
        let (place, own) = self.place(client.map(client_network))?;
        let mut is_in_front = false;
        let turn = async {
            let own = own.acquire_owned().await.ok()?;
            is_in_front = true;
            Some((own, self.running.clone().acquire_owned().await.ok()?))
        };
        match timeout(self.patience, turn).await {
            Ok(Some((own, running))) => {
                Ok(HashPermit { _running: running, _running_of_one: own, _place: place })
            }
            _ if is_in_front => Err(Overloaded::TooMany),
            _ => Err(Overloaded::TooManyOfOne),
        }
    }

    /// A place for a client, and the queue of that client's own.
    fn place(self: &Arc<Self>, of: Option<IpAddr>) -> Result<(WaitingPermit, Arc<Semaphore>), Overloaded> {
        let mut clients = self.clients.lock();
        if clients.get(&of).is_some_and(|client| client.places >= MAX_OF_ONE) {
            return Err(Overloaded::TooManyOfOne);
        }
        let among_all = self.places.clone().try_acquire_owned().map_err(|_| Overloaded::TooMany)?;
        let new = || Client { running: Arc::new(Semaphore::new(self.running_of_one)), places: 0 };
        let client = clients.entry(of).or_insert_with(new);
        client.places += 1;
        Ok((WaitingPermit { hashing: self.clone(), of, _among_all: among_all }, client.running.clone()))
    }
}

impl Drop for WaitingPermit {
    fn drop(&mut self) {
        let mut clients = self.hashing.clients.lock();
        if let Some(client) = clients.get_mut(&self.of) {
            client.places -= 1;
            if client.places == 0 {
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

    fn hashing(at_once: usize, places: usize) -> Arc<Hashing> {
        Arc::new(Hashing::new(at_once, places, PATIENCE))
    }

    #[tokio::test]
    async fn some_run_some_wait_and_the_rest_are_turned_away() {
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
    async fn whoever_floods_waits_for_itself_and_another_for_one_of_its_passwords() {
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
        // It may be before the guess that has come to the front only now.
        assert!(another.await.is_ok());
    }

    #[tokio::test]
    async fn a_hundred_addresses_that_flood_leave_places_to_others() {
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
    async fn a_network_of_ipv6_is_one_client() {
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
    async fn who_does_not_wait_any_more_has_no_place() {
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
    async fn nobody_waits_for_long() {
        let hashing = Arc::new(Hashing::new(1, MAX_PLACES, Duration::from_millis(1)));
        let _held = hashing.turn(of(1)).await.ok().unwrap();
        assert_eq!(hashing.turn(of(1)).await.err(), Some(Overloaded::TooManyOfOne), "it waits for itself");
        assert_eq!(hashing.turn(of(2)).await.err(), Some(Overloaded::TooMany));
    }
}
