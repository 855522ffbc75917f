//! Algorithm `least_connections`: the member with the fewest requests in flight.

use super::Member;
use super::weighted::{Schedule, scheduled};

/// Returns the member with the fewest requests in flight in proportion to its weight. Members with equal load take
/// turns by weight.
pub(super) fn least_connections<'m>(
    members: &'m [Member],
    schedule: &Schedule,
    turn: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let whose_turn = scheduled(members, schedule, turn, usable);
    let candidates = whose_turn.into_iter().chain(members.iter().filter(|member| usable(member)));
    candidates.reduce(|least, member| if member.has_less_to_do_than(least) { member } else { least })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, members, usable};
    use super::*;
    use crate::upstream::backend::tests::begin;

    #[test]
    fn idle_members_take_turns_by_weight() {
        for (weights, shares) in [([1; 3], [10; 3]), ([3, 2, 1], [15, 10, 5])] {
            let members = members(&weights);
            let schedule = Schedule::new(&members);
            let picks = (0..30).map(|turn| least_connections(&members, &schedule, turn, &usable));
            assert_eq!(counts(&members, picks), shares);
        }
    }

    #[test]
    fn requests_in_flight_follow_weights() {
        let members = members(&[4, 2, 1]);
        let schedule = Schedule::new(&members);
        let pick = |turn| least_connections(&members, &schedule, turn, &usable).unwrap();
        let attempts: Vec<_> = (0..70).map(|turn| begin(&pick(turn).backend)).collect();
        assert_eq!(members.iter().map(|member| member.backend.inflight()).collect::<Vec<_>>(), [40, 20, 10]);
        drop(attempts);
    }
}
