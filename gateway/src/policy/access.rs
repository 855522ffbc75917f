//! `[access]`: allows or refuses clients by their address. Because the networks are merged into sorted ranges
//! without overlap, a list of thousands of networks costs a request about a dozen comparisons.

use std::net::IpAddr;

use super::Verdict;
use crate::config::{self, Cidr};
use crate::reply::{Problem, Reply};

/// The compiled `[access]` table.
pub struct Access {
    /// Addresses that are allowed; `None` allows every address.
    allow: Option<Ranges>,
    deny: Ranges,
}

impl Access {
    /// Compiles the table. Returns `None` if the table allows every client.
    pub fn new(config: &config::Access) -> Option<Self> {
        let allow = Some(&config.allow).filter(|allow| !allow.is_empty()).map(|allow| Ranges::new(allow));
        let access = Access { allow, deny: Ranges::new(&config.deny) };
        (access.allow.is_some() || !access.deny.0.is_empty()).then_some(access)
    }

    /// Refuses a client whose `address` is not allowed. A client on a Unix socket has no address (`None`), so
    /// no network matches the client.
    pub fn check(&self, address: Option<IpAddr>) -> Verdict {
        let is_in = |ranges: &Ranges| address.is_some_and(|address| ranges.contain(address));
        let is_denied = is_in(&self.deny);
        if is_denied || self.allow.as_ref().is_some_and(|allow| !is_in(allow)) {
            // The reply does not say which list refused the client: clients have no need to know the
            // configuration.
            return Verdict::Reply(Reply::new(
                Problem::AddressDenied,
                "clients from this address are not allowed",
            ));
        }
        Verdict::Continue(())
    }
}

/// Ranges of addresses (first and last), sorted and without overlap. IPv4 sorts before IPv6.
struct Ranges(Vec<(IpAddr, IpAddr)>);

impl Ranges {
    fn new(networks: &[Cidr]) -> Self {
        let mut sorted: Vec<(IpAddr, IpAddr)> = networks.iter().map(Cidr::range).collect();
        sorted.sort_unstable();
        let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match ranges.last_mut() {
                // Two networks are either nested or disjoint.
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Ranges(ranges)
    }

    fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        behind.checked_sub(1).is_some_and(|at| address <= self.0[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(toml: &str) -> Option<Access> {
        let table: config::Access = toml::from_str(toml).unwrap();
        Access::new(&table)
    }

    fn status(access: &Access, address: &str) -> u16 {
        match access.check(address.parse().ok()) {
            Verdict::Continue(()) => 200,
            Verdict::Reply(reply) => reply.status(),
        }
    }

    #[test]
    fn deny_wins_and_allow_leaves_out_all_others() {
        let access = access(
            "allow = [\"10.0.0.0/8\", \"10.1.0.0/16\", \"192.0.2.7\", \"2001:db8::/32\"]\ndeny = [\"10.6.6.0/24\"]",
        )
        .unwrap();
        for (address, expected) in [
            ("10.0.0.0", 200),
            ("10.1.2.3", 200),
            ("10.255.255.255", 200),
            ("::ffff:10.1.2.3", 200),
            ("10.6.5.255", 200),
            ("10.6.6.0", 403),
            ("10.6.6.255", 403),
            ("::ffff:10.6.6.6", 403),
            ("10.6.7.0", 200),
            ("11.0.0.0", 403),
            ("9.255.255.255", 403),
            ("192.0.2.7", 200),
            ("192.0.2.8", 403),
            ("2001:db8:ffff::1", 200),
            ("2001:db9::", 403),
            ("::1", 403),
            ("no address", 403),
        ] {
            assert_eq!(status(&access, address), expected, "{address}");
        }
    }

    #[test]
    fn deny_alone_lets_all_others_in() {
        let access = access("deny = [\"0.0.0.0/0\"]").unwrap();
        for (address, expected) in [("192.0.2.1", 403), ("2001:db8::1", 200), ("no address", 200)] {
            assert_eq!(status(&access, address), expected, "{address}");
        }
    }

    #[test]
    fn empty_table_compiles_to_none() {
        assert!(access("").is_none());
    }

    #[test]
    fn ranges_contain_the_addresses_of_their_networks() {
        let networks: Vec<Cidr> = (0..4000)
            .map(|_| {
                format!(
                    "{}.{}.{}.0/{}",
                    fastrand::u8(..16),
                    fastrand::u8(..),
                    fastrand::u8(..),
                    fastrand::u8(12..=32)
                )
                .parse()
                .unwrap()
            })
            .collect();
        let ranges = Ranges::new(&networks);
        for _ in 0..4000 {
            let address =
                IpAddr::from([fastrand::u8(..18), fastrand::u8(..), fastrand::u8(..), fastrand::u8(..)]);
            let expected = networks.iter().any(|network| network.contains(address));
            assert_eq!(ranges.contain(address), expected, "{address}");
        }
    }
}
