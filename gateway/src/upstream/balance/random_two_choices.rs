//! Algorithm `random_two_choices`: the less busy of two random members.

use super::weighted::{Schedule, weighted};
use super::{Member, scatter};

/// Picks two members at random by weight, and returns the one with fewer requests in flight in proportion to its
/// weight. The load is spread nearly as evenly as if all members were compared. In addition, several gateways do not
/// all choose the same backend.
pub(super) fn random_two_choices<'m>(
    members: &'m [Member],
    schedule: &Schedule,
    turn: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let random = scatter(turn);
    // A random turn of the schedule gives a random member, by weight.
    let first = weighted(members, schedule, random as u32 as usize, usable)?;
    let second = weighted(members, schedule, (random >> 32) as usize, usable)?;
    Some(if second.has_less_to_do_than(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, members, usable};
    use super::*;
    use crate::upstream::backend::tests::begin;

    #[test]
    fn random_choices_spread_requests_evenly() {
        let members = members(&[1; 4]);
        let schedule = Schedule::new(&members);
        let picks = || (0..4000).map(|turn| random_two_choices(&members, &schedule, turn, &usable));
        let even = counts(&members, picks());
        assert!(even.iter().all(|count| count.abs_diff(1000) < 100), "{even:?}");
        members[0].backend.set_drained(true);
        let even = counts(&members, picks());
        assert!(even[0] == 0 && even[1..].iter().all(|count| count.abs_diff(1333) < 120), "{even:?}");
    }

    #[test]
    fn busy_member_is_avoided_and_weights_count() {
        let members = members(&[1, 1, 2]);
        let schedule = Schedule::new(&members);
        let pick = |turn| random_two_choices(&members, &schedule, turn, &usable);
        let attempts: Vec<_> = (0..400).map(|turn| begin(&pick(turn).unwrap().backend)).collect();
        let inflight = || members.iter().map(|member| member.backend.inflight()).collect::<Vec<_>>();
        // If both choices are the same member, that member gets the request, even if it is busy.
        assert!(inflight()[2] > 150 && inflight()[0].abs_diff(inflight()[1]) < 20, "{:?}", inflight());
        drop(attempts);
        let busy: Vec<_> = (0..10).map(|_| begin(&members[0].backend)).collect();
        let counts = counts(&members, (0..900).map(pick));
        assert!(counts[0] < 150, "only where both choices are it: {counts:?}");
        drop(busy);
    }
}
