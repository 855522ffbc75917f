//! Parses entity tags in lists (RFC 9110 8.8.3). A tag may contain a comma, so the list cannot be split at
//! commas.

use http::HeaderValue;

/// Returns each tag in one line of a list: true for a weak tag, and the text between the quotes.
pub(super) fn tags(line: &HeaderValue) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = line.as_bytes();
    std::iter::from_fn(move || {
        let open = rest.iter().position(|byte| *byte == b'"')?;
        let (before, quoted) = (&rest[..open], &rest[open + 1..]);
        let close = quoted.iter().position(|byte| *byte == b'"')?;
        rest = &quoted[close + 1..];
        Some((before.ends_with(b"W/"), &quoted[..close]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_any_list() {
        for (line, expected) in [
            ("\"a\"", &[(false, "a")][..]),
            ("W/\"a\"", &[(true, "a")]),
            ("\"a,b\" ,W/\"W/\",\"\"", &[(false, "a,b"), (true, "W/"), (false, "")]),
            (", ,\"a\",", &[(false, "a")]),
            ("*", &[]),
            ("a", &[]),
            ("\"a", &[]),
            ("", &[]),
        ] {
            let value = HeaderValue::from_str(line).unwrap();
            let found: Vec<_> =
                tags(&value).map(|(weak, tag)| (weak, std::str::from_utf8(tag).unwrap())).collect();
            assert_eq!(found, expected, "{line}");
        }
    }
}
