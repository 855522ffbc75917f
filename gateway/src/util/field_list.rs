//! Header fields whose value is a list with commas (RFC 9110 5.6.1). All code that reads such a field uses this
//! parser, so that the results agree. Several lines form one list, white space around a member is ignored, and empty
//! members are skipped. Module `accept` parses the weights of members. Lists with quoted commas, such as `Forwarded`,
//! have their own parsers.

use http::HeaderMap;
use http::header::AsHeaderName;

/// Returns the members of the list in the field `name`, in order.
pub fn members(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).into_iter().flat_map(|line| members_of(line.as_bytes()))
}

/// Returns true if `token` is a member of the list in the field `name`. Upper and lower case are not distinguished.
pub fn has(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    members(headers, name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// Returns the members of one line of a list.
pub fn members_of(line: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    parts(line).filter(|member| !member.is_empty())
}

/// Returns the members of one line of a list, including empty members, which are an error in some fields.
pub fn parts(line: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONNECTION;

    use super::*;

    #[test]
    fn empty_members_and_white_space_are_ignored() {
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
