//! Weighted round robin, smooth: heavier members come more often, and never in a row where that can be avoided.

use super::{Member, nth_usable, scaled, scatter};

/// The most turns after which a schedule begins again. With more weight in all, shares are rounded to it.
const MAX_TURNS: u64 = 4096;

/// Other turns that are tried where a member is not usable, before all members are looked at.
const TRIES: usize = 8;

/// Whose turn is when, worked out before: the interleaving that nginx works out anew for each request, and
/// needs a lock for.
pub(super) struct Schedule(Vec<u32>);

impl Schedule {
    /// The schedule for these weights. At each turn every member gains its weight, and the one that has most
    /// is chosen and pays the sum of all weights.
    pub(super) fn new(members: &[Member]) -> Self {
        let weights = scaled(members, MAX_TURNS.max(members.len() as u64));
        let total: i64 = weights.iter().copied().map(i64::from).sum();
        let mut gained = vec![0; weights.len()];
        let turn = |_| {
            for (gained, weight) in gained.iter_mut().zip(&weights) {
                *gained += i64::from(*weight);
            }
            // Of equals the first.
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

/// The member whose turn it is by `schedule`. Where that is not usable, another turn decides, picked at random,
/// so that its share goes to the others by their weights.
pub(super) fn weighted<'m>(
    members: &'m [Member],
    schedule: &Schedule,
    turn: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    scheduled(members, schedule, turn, usable).or_else(|| nth_usable(members, turn, usable))
}

/// The same member; `None` where a few turns came to none that is usable.
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
    fn the_heavy_one_is_never_five_times_in_a_row() {
        let members = members(&[5, 1, 1]);
        let schedule = Schedule::new(&members);
        let name = |turn| weighted(&members, &schedule, turn, &usable).unwrap().backend.name.clone();
        assert_eq!((0..14).map(name).collect::<String>(), "aabacaaaabacaa");
    }

    #[test]
    fn shares_are_as_the_weights() {
        assert_eq!(picks(&members(&[5, 1, 1]), 700), [500, 100, 100]);
        assert_eq!(picks(&members(&[1000, 500, 250]), 700), [400, 200, 100]);
        let large = picks(&members(&[997, 991, 1]), 1989 * 10);
        assert!(large[0].abs_diff(9970) < 10 && large[2].abs_diff(10) < 10, "{large:?}");
        let many: Vec<u32> = (0..300).map(|i| 1 + i % 7).collect();
        let counts = picks(&members(&many), 1197 * 4);
        assert!(counts.iter().zip(&many).all(|(count, weight)| *count == *weight as usize * 4), "{counts:?}");
    }

    #[test]
    fn the_share_of_an_unusable_one_goes_to_the_others_by_their_weights() {
        let members = members(&[4, 4, 2]);
        members[0].backend.set_drained(true);
        let counts = picks(&members, 9000);
        assert!(
            counts[0] == 0 && counts[1].abs_diff(6000) < 200 && counts[2].abs_diff(3000) < 200,
            "{counts:?}"
        );
    }
}
