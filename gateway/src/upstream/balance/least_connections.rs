//! Least connections.

use super::Member;

/// The member with the fewest requests in flight for its weight; among equals they take turns.
pub(super) fn least_connections<'m>(
    members: &'m [Member],
    turn: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let start = turn.checked_rem(members.len())?;
    let (before, from_start) = members.split_at(start);
    let candidates = from_start.iter().chain(before).filter(|member| usable(member));
    candidates.reduce(|least, member| if member.has_less_to_do_than(least) { member } else { least })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, members, usable};
    use super::*;
    use crate::upstream::backend::tests::begin;

    #[test]
    fn those_with_nothing_to_do_take_turns() {
        let members = members(&[1; 3]);
        let picks = (0..30).map(|turn| least_connections(&members, turn, &usable));
        assert_eq!(counts(&members, picks), [10; 3]);
    }

    #[test]
    fn requests_in_flight_are_as_the_weights() {
        let members = members(&[4, 2, 1]);
        let attempts: Vec<_> =
            (0..70).map(|turn| begin(&least_connections(&members, turn, &usable).unwrap().backend)).collect();
        assert_eq!(members.iter().map(|member| member.backend.inflight()).collect::<Vec<_>>(), [40, 20, 10]);
        drop(attempts);
    }
}
