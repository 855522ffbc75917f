//! Consistent hashing, with Pingora's ring (ketama: the points of nginx's `hash … consistent`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use pingora_ketama::{Bucket, Continuum};

use super::{Member, nth_usable, scaled};
use crate::upstream::Endpoint;

/// The most weight in all. Each unit is 160 points of 8 bytes.
const MAX_WEIGHT: u64 = 1024;

/// Every member in many places of a circle. A key belongs to the one whose place comes next.
pub(super) struct Ring {
    continuum: Continuum,
    members: HashMap<SocketAddr, usize>,
}

impl Ring {
    pub(super) fn new(members: &[Member]) -> Self {
        let weights = scaled(members, MAX_WEIGHT.max(members.len() as u64));
        let places: Vec<SocketAddr> = members.iter().map(|member| place(&member.backend.endpoint)).collect();
        let buckets: Vec<Bucket> =
            places.iter().zip(weights).map(|(place, weight)| Bucket::new(*place, weight)).collect();
        let members = places.into_iter().enumerate().map(|(index, place)| (place, index)).collect();
        Ring { continuum: Continuum::new(&buckets), members }
    }
}

/// The address by which a backend has its places, the same ones in every process. The ring knows no Unix
/// sockets; for them it is one that nobody has, made from the path.
fn place(endpoint: &Endpoint) -> SocketAddr {
    match endpoint {
        Endpoint::Inet(address) => *address,
        Endpoint::Unix(_) | Endpoint::Unresolved(_) => {
            let hash = openssl::sha::sha256(endpoint.to_string().as_bytes());
            let mut segments = [0xfd; 16];
            segments[1..].copy_from_slice(&hash[..15]);
            SocketAddr::new(IpAddr::V6(Ipv6Addr::from(segments)), 1)
        }
    }
}

/// The member to which `key` belongs. Where that is not usable, the next one on the ring that is: the keys of
/// all others stay where they are, and its own go to several.
pub(super) fn consistent_hash<'m>(
    members: &'m [Member],
    ring: &Ring,
    key: &[u8],
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let places = ring.continuum.node_iter(key).take(16 + 2 * members.len());
    let mut owners = places.filter_map(|place| members.get(*ring.members.get(place)?));
    // Where one has so many places that they run out: any other, the same one for the same key.
    owners.find(|member| usable(member)).or_else(|| nth_usable(members, ring.continuum.node_idx(key), usable))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{members, usable};
    use super::*;

    const KEYS: usize = 10_000;

    /// The owner of each key.
    fn owners(members: &[Member]) -> Vec<String> {
        let ring = Ring::new(members);
        let owner = |key: usize| {
            consistent_hash(members, &ring, key.to_string().as_bytes(), &usable).unwrap().backend.name.clone()
        };
        (0..KEYS).map(owner).collect()
    }

    fn share(owners: &[String], name: &str) -> f64 {
        owners.iter().filter(|owner| *owner == name).count() as f64 / KEYS as f64
    }

    #[test]
    fn without_one_of_ten_only_its_keys_move() {
        let mut members = members(&[1; 10]);
        let before = owners(&members);
        for name in ["a", "e", "j"] {
            let of_one = share(&before, name);
            assert!((0.06..0.14).contains(&of_one), "{name}: {of_one}");
        }
        members[3].backend.set_drained(true);
        let drained = owners(&members);
        members.remove(3);
        let removed = owners(&members);
        for after in [drained, removed] {
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
            assert!(moved.clone().all(|(before, _)| before == "d"), "nobody else's key moves");
            let heirs: std::collections::HashSet<_> = moved.map(|(_, after)| after).collect();
            assert!(heirs.len() > 5, "several get them: {heirs:?}");
        }
    }

    #[test]
    fn shares_are_as_the_weights() {
        let owners = owners(&members(&[3, 1]));
        assert!((share(&owners, "a") - 0.75).abs() < 0.05, "{}", share(&owners, "a"));
    }

    #[test]
    fn a_socket_has_places_of_its_own() {
        let place = |path: &str| super::place(&Endpoint::Unix(path.into()));
        assert_eq!(place("/run/a.sock"), place("/run/a.sock"));
        assert_ne!(place("/run/a.sock"), place("/run/b.sock"));
    }
}
