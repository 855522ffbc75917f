//! Smooth weighted round robin: heavier members get more turns, spread over the schedule.

use super::{Member, nth_usable, scaled, scatter};

/// Maximum length of a schedule, in turns. If the sum of the weights is larger, shares are rounded.
const MAX_TURNS: u64 = 4096;

/// Number of turns that are tried before all members are searched for a usable one.
const TRIES: usize = 8;

/// Order of all turns, computed in advance, so that a choice needs no lock. nginx has the same order, but computes
/// each turn under a lock when the request comes.
pub(super) struct Schedule(Vec<u32>);

impl Schedule {
    /// Returns the schedule for the weights of `members`. At each turn, every member gains its weight; the member
    /// with the most is chosen, and pays the sum of all weights.
    pub(super) fn new(members: &[Member]) -> Self {
        let weights = scaled(members, MAX_TURNS.max(members.len() as u64));
        let total: i64 = weights.iter().copied().map(i64::from).sum();
        let mut gained = vec![0; weights.len()];
        let turn = |_| {
            for (gained, weight) in gained.iter_mut().zip(&weights) {
                *gained += i64::from(*weight);
            }
            // Among equal members, the first is chosen.
            let most = gained.iter().enumerate().rev().max_by_key(|(_, gained)| **gained);
            let chosen = most.map_or(0, |(index, _)| index);
            gained[chosen] -= total;
            chosen as u32
        };
        Schedule((0..total).map(turn).collect())
    }

    fn at(&self, turn: usize) -> Option<usize> {
        let index = turn.checked_rem(self.0.len())?;
        Some(self.0[index] as usize)
    }
}

/// Returns the member whose turn it is in `schedule`. If that member is not usable, another turn is picked at random.
/// So the share of the unusable member is divided among the others by weight.
pub(super) fn weighted<'m>(
    members: &'m [Member],
    schedule: &Schedule,
    turn: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    scheduled(members, schedule, turn, usable).or_else(|| nth_usable(members, turn, usable))
}

/// Returns the member whose turn it is, like [`weighted()`]; `None` if [`TRIES`] turns gave no usable member.
pub(super) fn scheduled<'m>(
    members: &'m [Member],
    schedule: &Schedule,
    turn: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let mut other = turn;
    for _ in 0..TRIES {
        let member = &members[schedule.at(other)?];
        if usable(member) {
            return Some(member);
        }
        other = scatter(other) as usize;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, members, usable};
    use super::*;

    fn picks(members: &[Member], turns: usize) -> Vec<usize> {
        let schedule = Schedule::new(members);
        counts(members, (0..turns).map(|turn| weighted(members, &schedule, turn, &usable)))
    }

    #[test]
    fn heavy_member_is_never_chosen_five_times_in_a_row() {
        let members = members(&[5, 1, 1]);
        let schedule = Schedule::new(&members);
        let name = |turn| weighted(&members, &schedule, turn, &usable).unwrap().backend.name.clone();
        assert_eq!((0..14).map(name).collect::<String>(), "aabacaaaabacaa");
    }

    #[test]
    fn shares_follow_weights() {
        assert_eq!(picks(&members(&[5, 1, 1]), 700), [500, 100, 100]);
        assert_eq!(picks(&members(&[1000, 500, 250]), 700), [400, 200, 100]);
        let large = picks(&members(&[997, 991, 1]), 1989 * 10);
        assert!(large[0].abs_diff(9970) < 10 && large[2].abs_diff(10) < 10, "{large:?}");
        let many: Vec<u32> = (0..300).map(|i| 1 + i % 7).collect();
        let counts = picks(&members(&many), 1197 * 4);
        assert!(counts.iter().zip(&many).all(|(count, weight)| *count == *weight as usize * 4), "{counts:?}");
    }

    #[test]
    fn share_of_unusable_member_goes_to_others_by_weight() {
        let members = members(&[4, 4, 2]);
        members[0].backend.set_drained(true);
        let counts = picks(&members, 9000);
        assert!(
            counts[0] == 0 && counts[1].abs_diff(6000) < 200 && counts[2].abs_diff(3000) < 200,
            "{counts:?}"
        );
    }
}
