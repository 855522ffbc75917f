//! Consistent hashing with Pingora's ring (ketama, with the same points as nginx's `hash … consistent`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use pingora_ketama::{Bucket, Continuum};

use super::{Member, nth_usable, scaled};
use crate::upstream::Endpoint;

/// Maximum sum of all weights. It limits the memory, because each unit of weight takes 160 points of 8 bytes.
const MAX_WEIGHT: u64 = 1024;

/// Hash ring: each member has many points on a circle. A key selects the member of the next point.
pub(super) struct Ring {
    continuum: Continuum,
    members: HashMap<SocketAddr, usize>,
}

impl Ring {
    pub(super) fn new(members: &[Member]) -> Self {
        let weights = scaled(members, MAX_WEIGHT.max(members.len() as u64));
        let addresses: Vec<SocketAddr> =
            members.iter().map(|member| place(&member.backend.endpoint)).collect();
        let buckets: Vec<Bucket> =
            addresses.iter().zip(weights).map(|(place, weight)| Bucket::new(*place, weight)).collect();
        let members = addresses.into_iter().enumerate().map(|(index, place)| (place, index)).collect();
        Ring { continuum: Continuum::new(&buckets), members }
    }
}

/// Returns the address from which the points of a backend are computed. The address is the same in every process. The
/// ring accepts only IP addresses, so for a Unix socket an unused IP address is made from the path.
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

/// Returns the member that `key` selects. If that member is not usable, the next usable member on the ring is
/// returned. Therefore the keys of an unusable member are spread over several members, and no other key moves.
pub(super) fn consistent_hash<'m>(
    members: &'m [Member],
    ring: &Ring,
    key: &[u8],
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let addresses = ring.continuum.node_iter(key).take(16 + 2 * members.len());
    let mut owners = addresses.filter_map(|place| members.get(*ring.members.get(place)?));
    // If the search ends without a usable member, the key's hash selects one of the usable members.
    owners.find(|member| usable(member)).or_else(|| nth_usable(members, ring.continuum.node_idx(key), usable))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{members, usable};
    use super::*;

    const KEYS: usize = 10_000;

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
    fn removed_member_moves_only_its_own_keys() {
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
    fn shares_follow_weights() {
        let owners = owners(&members(&[3, 1]));
        assert!((share(&owners, "a") - 0.75).abs() < 0.05, "{}", share(&owners, "a"));
    }

    #[test]
    fn unix_socket_has_its_own_ring_address() {
        let place = |path: &str| super::place(&Endpoint::Unix(path.into()));
        assert_eq!(place("/run/a.sock"), place("/run/a.sock"));
        assert_ne!(place("/run/a.sock"), place("/run/b.sock"));
    }
}
