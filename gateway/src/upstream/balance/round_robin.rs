//! Algorithm `round_robin`: the members in turn, without weights.

use super::{Member, nth_usable};

/// Returns the member whose turn it is. The turns of an unusable member are shared among all usable members. Otherwise
/// the member after it would get twice as many requests.
pub(super) fn round_robin<'m>(
    members: &'m [Member],
    turn: usize,
    usable: &impl Fn(&Member) -> bool,
) -> Option<&'m Member> {
    let slot = turn.checked_rem(members.len())?;
    let member = &members[slot];
    if usable(member) {
        return Some(member);
    }
    nth_usable(members, turn / members.len() + slot, usable)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{counts, members, usable};
    use super::*;

    #[test]
    fn usable_members_get_equal_shares() {
        let members = members(&[1; 4]);
        let picks = || (0..300).map(|turn| round_robin(&members, turn, &usable));
        assert_eq!(counts(&members, picks()), [75; 4]);
        members[1].backend.set_drained(true);
        assert_eq!(counts(&members, picks()), [100, 0, 100, 100]);
        members[2].backend.set_drained(true);
        assert_eq!(counts(&members, picks()), [150, 0, 0, 150]);
    }
}
