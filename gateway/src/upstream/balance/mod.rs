//! Load balancing: the choice among the usable backends. Each algorithm is one function. It gets the members, the
//! number of the turn, and a test that tells which members may be chosen. No algorithm locks or allocates.
//!
//! | algorithm | cost of a choice | suited to |
//! |---|---|---|
//! | [`round_robin()`] | O(1); O(n) if the next member is not usable | equal backends, equal requests |
//! | [`weighted()`] | O(1); O(n) at worst | backends with different weights; also used for round robin with weights |
//! | [`least_connections()`] | O(n) | requests that differ, few backends |
//! | [`random_two_choices()`] | O(1); O(n) at worst | requests that differ, many backends or several gateways |
//! | [`consistent_hash()`] | O(log n) | caches: the same key goes to the same backend |

mod consistent_hash;
mod least_connections;
mod random_two_choices;
mod round_robin;
mod weighted;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use consistent_hash::{Ring, consistent_hash};
use least_connections::least_connections;
use random_two_choices::random_two_choices;
use round_robin::round_robin;
use weighted::{Schedule, weighted};

use super::BackendState;
use crate::config::Algorithm;

/// A backend in a pool.
pub struct Member {
    /// The backend.
    pub backend: Arc<BackendState>,
    /// Weight: the backend's share of the requests, in proportion to the other weights.
    pub weight: u32,
}

impl Member {
    /// Returns true if this member has fewer requests in flight per unit of weight than `other`.
    fn has_less_to_do_than(&self, other: &Member) -> bool {
        let load = |of: &Member, weight: u32| u64::from(of.backend.inflight()) * u64::from(weight);
        load(self, other.weight) < load(other, self.weight)
    }
}

/// Members, and the algorithm that chooses among them.
pub(super) struct Group {
    members: Vec<Member>,
    balance: Balance,
    turn: AtomicUsize,
}

/// Load-balancing algorithm, with the table that it has computed from the members.
enum Balance {
    RoundRobin,
    Weighted(Schedule),
    LeastConnections(Schedule),
    RandomTwoChoices(Schedule),
    ConsistentHash(Ring),
}

impl Group {
    pub(super) fn new(members: Vec<Member>, algorithm: Algorithm) -> Self {
        let balance = match algorithm {
            // Both names mean the same: as in nginx and HAProxy, round robin uses the weights.
            Algorithm::RoundRobin | Algorithm::Weighted if has_equal_weights(&members) => Balance::RoundRobin,
            Algorithm::RoundRobin | Algorithm::Weighted => Balance::Weighted(Schedule::new(&members)),
            Algorithm::LeastConnections => Balance::LeastConnections(Schedule::new(&members)),
            Algorithm::RandomTwoChoices => Balance::RandomTwoChoices(Schedule::new(&members)),
            Algorithm::ConsistentHash => Balance::ConsistentHash(Ring::new(&members)),
        };
        Group { members, balance, turn: AtomicUsize::new(0) }
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Takes the next turn, and returns its number.
    pub(super) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the number that the next call of `turn` will return.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    /// Returns the member for `turn` among those for which `usable` returns true; `None` if there are none. Only
    /// consistent hashing uses `key`. A member in its slow start gets only a part of its share.
    pub(super) fn pick(&self, turn: usize, key: &[u8], usable: impl Fn(&Member) -> bool) -> Option<&Member> {
        let picked = self.chosen(turn, key, &usable)?;
        let draw = scatter(turn) as u32;
        if !picked.backend.is_warming(draw) {
            return Some(picked);
        }
        let warm =
            self.chosen(turn, key, &|member: &Member| usable(member) && !member.backend.is_warming(draw));
        warm.or(Some(picked))
    }

    fn chosen(&self, turn: usize, key: &[u8], usable: &impl Fn(&Member) -> bool) -> Option<&Member> {
        let members = &self.members;
        match &self.balance {
            Balance::RoundRobin => round_robin(members, turn, usable),
            Balance::Weighted(schedule) => weighted(members, schedule, turn, usable),
            Balance::LeastConnections(schedule) => least_connections(members, schedule, turn, usable),
            Balance::RandomTwoChoices(schedule) => random_two_choices(members, schedule, turn, usable),
            Balance::ConsistentHash(ring) => consistent_hash(members, ring, key, usable),
        }
    }
}

fn has_equal_weights(members: &[Member]) -> bool {
    members.windows(2).all(|pair| matches!(pair, [one, other] if one.weight == other.weight))
}

/// Returns a number that looks random, and is different for each turn (the mixer of SplitMix64).
fn scatter(turn: usize) -> u64 {
    let mut mixed = (turn as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// Returns the usable member with the index `nth` modulo the number of usable members; `None` if there are none.
fn nth_usable<'m>(
    members: &'m [Member],
    nth: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let candidates = || members.iter().filter(|member| usable(member));
    let index = nth.checked_rem(candidates().count())?;
    // A member may have become unusable between the two iterations. Then the first usable one is returned.
    candidates().nth(index).or_else(|| candidates().next())
}

/// Returns weights in the same proportions, with a sum of about `most` or less, and each at least 1. The sum is
/// bounded because it is the length of a schedule or a ring.
fn scaled(members: &[Member], most: u64) -> Vec<u32> {
    let weights = || members.iter().map(|member| u64::from(member.weight.max(1)));
    let divisor = weights().reduce(gcd).unwrap_or(1);
    let total = weights().sum::<u64>() / divisor;
    let scale = |weight: u64| match weight / divisor {
        weight if total > most => (weight * most + total / 2) / total,
        weight => weight,
    };
    weights().map(|weight| u32::try_from(scale(weight).max(1)).unwrap_or(u32::MAX)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::upstream::backend::tests::backend;

    /// Returns members named a, b, c and so on, with these weights.
    pub(super) fn members(weights: &[u32]) -> Vec<Member> {
        let metrics = Metrics::new().unwrap();
        let member =
            |(i, weight): (usize, &u32)| Member { backend: backend(&metrics, &name(i)), weight: *weight };
        weights.iter().enumerate().map(member).collect()
    }

    fn name(i: usize) -> String {
        match u8::try_from(i) {
            Ok(i) if i < 26 => char::from(b'a' + i).to_string(),
            _ => format!("backend-{i}"),
        }
    }

    pub(super) fn usable(member: &Member) -> bool {
        member.backend.is_usable()
    }

    /// Returns how often each member was picked.
    pub(super) fn counts<'m>(
        members: &[Member],
        picks: impl Iterator<Item = Option<&'m Member>>,
    ) -> Vec<usize> {
        let mut counts = vec![0; members.len()];
        for picked in picks {
            counts[members.iter().position(|member| std::ptr::eq(member, picked.unwrap())).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn no_algorithm_picks_an_unusable_member() {
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::Weighted,
            Algorithm::LeastConnections,
            Algorithm::RandomTwoChoices,
            Algorithm::ConsistentHash,
        ] {
            let none = Group::new(Vec::new(), algorithm);
            assert!(none.pick(0, b"key", |_| true).is_none(), "{algorithm:?}");
            let some = Group::new(members(&[1, 2, 3]), algorithm);
            assert!(some.pick(0, b"key", |_| false).is_none(), "{algorithm:?}");
            for turn in 0..100 {
                let last = some.pick(turn, b"key", |member| member.weight == 3).unwrap();
                assert_eq!(last.backend.name, "c", "{algorithm:?}");
            }
        }
    }

    /// Operators may rely on weights, so no algorithm may ignore them.
    #[test]
    fn weights_count_for_every_algorithm() {
        for algorithm in [
            Algorithm::RoundRobin,
            Algorithm::Weighted,
            Algorithm::LeastConnections,
            Algorithm::RandomTwoChoices,
            Algorithm::ConsistentHash,
        ] {
            let group = Group::new(members(&[3, 1]), algorithm);
            let pick = |turn: usize| group.pick(turn, turn.to_string().as_bytes(), usable);
            let counts = counts(group.members(), (0..4000).map(pick));
            assert!(counts[0].abs_diff(3000) < 250, "{algorithm:?}: {counts:?}");
        }
        let group = Group::new(members(&[3, 1]), Algorithm::RoundRobin);
        let name = |turn| group.pick(turn, b"", usable).unwrap().backend.name.clone();
        assert_eq!((0..8).map(name).collect::<String>(), "aabaaaba", "never three in a row, and one more");
    }

    #[test]
    fn recovered_member_gets_few_requests_at_first() {
        let group = Group::new(members(&[1, 1]), Algorithm::RoundRobin);
        let back = &group.members()[0].backend;
        back.set_failing(true, std::time::Duration::ZERO);
        back.set_failing(false, std::time::Duration::from_secs(3600));
        let counts = counts(group.members(), (0..1000).map(|turn| group.pick(turn, b"", usable)));
        assert!((30..=70).contains(&counts[0]), "a tenth of its half: {counts:?}");
        let alone = (0..10).map(|turn| group.pick(turn, b"", |member| member.backend.name == "a"));
        assert_eq!(alone.flatten().count(), 10, "where it is alone, it gets everything");
    }

    #[test]
    fn weights_are_scaled_in_proportion() {
        assert_eq!(scaled(&members(&[5, 1, 1]), 100), [5, 1, 1]);
        assert_eq!(scaled(&members(&[500, 100, 100]), 100), [5, 1, 1]);
        assert_eq!(scaled(&members(&[1000, 999, 1]), 200), [100, 100, 1]);
        assert_eq!(scaled(&members(&[]), 200), [0; 0]);
    }
}
