//! The power of two random choices.

use super::{Member, nth_usable, scatter};

/// Of two members picked at random, the one with fewer requests in flight for its weight: nearly as even as
/// asking all of them, and several gateways do not run to the same one.
pub(super) fn random_two_choices<'m>(
    members: &'m [Member],
    turn: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let random = scatter(turn);
    let first = at_random(members, random as u32, usable)?;
    let second = at_random(members, (random >> 32) as u32, usable)?;
    Some(if second.has_less_to_do_than(first) { second } else { first })
}

/// A usable member, any of them.
fn at_random<'m>(
    members: &'m [Member],
    random: u32,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let index = (u64::from(random) * members.len() as u64) >> 32;
    let member = members.get(index as usize)?;
    if usable(member) {
        return Some(member);
    }
    nth_usable(members, random as usize, usable)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, members, usable};
    use super::*;
    use crate::upstream::backend::tests::begin;

    #[test]
    fn everybody_gets_about_the_same() {
        let members = members(&[1; 4]);
        let picks = || (0..4000).map(|turn| random_two_choices(&members, turn, &usable));
        let even = counts(&members, picks());
        assert!(even.iter().all(|count| count.abs_diff(1000) < 100), "{even:?}");
        members[0].backend.set_drained(true);
        let even = counts(&members, picks());
        assert!(even[0] == 0 && even[1..].iter().all(|count| count.abs_diff(1333) < 120), "{even:?}");
    }

    #[test]
    fn the_busy_one_is_avoided_and_weights_count() {
        let members = members(&[1, 1, 2]);
        let attempts: Vec<_> = (0..400)
            .map(|turn| begin(&random_two_choices(&members, turn, &usable).unwrap().backend))
            .collect();
        let inflight = || members.iter().map(|member| member.backend.inflight()).collect::<Vec<_>>();
        // Two choices among three leave a third of the turns to chance.
        assert!(inflight()[2] > 150 && inflight()[0].abs_diff(inflight()[1]) < 20, "{:?}", inflight());
        drop(attempts);
        let busy: Vec<_> = (0..10).map(|_| begin(&members[0].backend)).collect();
        let picks = (0..900).map(|turn| random_two_choices(&members, turn, &usable));
        let counts = counts(&members, picks);
        assert!(counts[0] < 150, "only where both choices are it: {counts:?}");
        drop(busy);
    }
}
