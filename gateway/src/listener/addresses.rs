//! Number of open connections from each client, so that one client cannot use up all connections
//! (`proxy.max_connections_per_ip`). A client is an IPv4 address or an IPv6 network (/64).
//!
//! A client is in the table only while it has an open connection, so the table has at most `max_connections` entries. A
//! part of the table is locked when a connection opens and when it ends, but not for a request.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::client_network;

/// Number of parts of the table. Each part has a separate lock.
const PARTS: usize = 16;

/// Table with the number of open connections from each client.
#[derive(Default)]
pub(super) struct Addresses {
    /// Hasher with a random key, so that a client cannot choose addresses that are all in one part.
    hasher: RandomState,
    parts: [Mutex<HashMap<IpAddr, u32>>; PARTS],
}

/// Permit for one connection from an address, which is returned when this value is dropped.
pub(super) struct AddressPermit {
    addresses: Arc<Addresses>,
    of: IpAddr,
}

impl Addresses {
    /// Returns a permit for a connection from `address`; `None` if `limit` connections from it are open already.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, limit: u32) -> Option<AddressPermit> {
        let of = client_network(address);
        let mut part = self.part(of).lock();
        let open = part.get(&of).copied().unwrap_or(0);
        if open >= limit {
            return None;
        }
        part.insert(of, open + 1);
        Some(AddressPermit { addresses: self.clone(), of })
    }

    fn part(&self, of: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        &self.parts[self.hasher.hash_one(of) as usize % PARTS]
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut part = self.addresses.part(self.of).lock();
        if let Some(open) = part.get_mut(&self.of) {
            *open -= 1;
            if *open == 0 {
                part.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn limit_counts_ipv4_by_address_and_ipv6_by_network() {
        let addresses = Arc::<Addresses>::default();
        for (ours, also_ours, anothers) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:1:2:3", "2001:db8:0:1::1"),
        ] {
            let first = addresses.enter(ip(ours), 2).unwrap();
            let _second = addresses.enter(ip(also_ours), 2).unwrap();
            assert!(addresses.enter(ip(ours), 2).is_none(), "{ours}");
            assert!(addresses.enter(ip(anothers), 2).is_some(), "{anothers}");
            drop(first);
            assert!(addresses.enter(ip(ours), 2).is_some(), "{ours}");
        }
    }

    #[test]
    fn closed_connections_leave_an_empty_table() {
        let addresses = Arc::<Addresses>::default();
        let places: Vec<_> =
            (0..200).map(|n| addresses.enter(IpAddr::from([192, 0, 2, n]), 1).unwrap()).collect();
        assert_eq!(addresses.parts.iter().map(|part| part.lock().len()).sum::<usize>(), 200);
        drop(places);
        assert!(addresses.parts.iter().all(|part| part.lock().is_empty()));
    }
}
