//! Header fields whose value is a list with commas (RFC 9110 5.6.1). Every reader of such a field goes through here, so
//! that all of them agree: several lines are one list, white space around a member means nothing, and an empty member
//! is none. (`Accept` and `Accept-Encoding`, whose members bear weights, are read by `preference`; lists with quoted
//! commas, as `Forwarded`, by those who know their grammar.)

use http::header::AsHeaderName;
use http::{HeaderMap, HeaderValue};

/// Returns the members of the list called `name`, in the order in which they stand there.
pub fn members(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).into_iter().flat_map(members_of)
}

/// Returns true if `token` is a member of the list called `name`, in any case of its letters.
pub fn has(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    members(headers, name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// Returns the members of one line of a list.
pub fn members_of(line: &HeaderValue) -> impl DoubleEndedIterator<Item = &[u8]> {
    let members = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use http::header::CONNECTION;

    use super::*;

    #[test]
    fn empty_members_and_white_space_mean_nothing() {
        for (lines, expected) in [
            (&["a, b", "c"][..], &["a", "b", "c"][..]),
            (&[",, a ,\t,b,", "", " ", ","], &["a", "b"]),
            (&["a b,c"], &["a b", "c"]),
            (&[""], &[]),
            (&[], &[]),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONNECTION, HeaderValue::from_str(line).unwrap());
            }
            let found: Vec<&str> =
                members(&headers, CONNECTION).map(|member| std::str::from_utf8(member).unwrap()).collect();
            assert_eq!(found, expected, "{lines:?}");
            assert_eq!(has(&headers, CONNECTION, "A"), expected.contains(&"a"), "{lines:?}");
        }
    }
}
