//! Paths as routing compares them: what a client may write in many ways has one form here, as it has for a
//! backend. Otherwise `/%61dmin` or `/x/../admin` would pass by the route `/admin`, and by its policies.

use std::borrow::Cow;

/// The path in its one form: letters, digits and `-._~` as they are rather than percent-encoded, dot segments
/// resolved, and no segment empty but the last (RFC 3986 6.2.2, and as nginx merges slashes). An encoded
/// slash stays what it is. Borrows where the client has written it so already.
pub fn normalise_path(path: &str) -> Cow<'_, str> {
    let is_plain =
        path.starts_with('/') && !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if is_plain {
        return Cow::Borrowed(path);
    }
    let decoded = decode_unreserved(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let is_directory = matches!(decoded.rsplit('/').next(), Some("" | "." | ".."));
    let mut normal = String::with_capacity(decoded.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if is_directory || normal.is_empty() {
        normal.push('/');
    }
    Cow::Owned(normal)
}

/// Decodes what need not be encoded (RFC 3986 2.3).
fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.map(char::from) {
            Some(c) if is_unreserved(c) && !completes_an_escape(&decoded, c) => {
                decoded.push(c);
                rest = &after[2..];
            }
            _ => {
                decoded.push('%');
                rest = after;
            }
        }
    }
    decoded + rest
}

fn is_unreserved(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~')
}

/// Whether `c` would make an escape of a percent sign that is none: `/%2%35` is not `/%25`. Nobody who decodes the
/// path once takes it for that, and a path whose form had another form would not have one.
fn completes_an_escape(before: &str, c: char) -> bool {
    let stray = match before.as_bytes() {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    };
    stray && c.is_ascii_hexdigit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_for_every_way_to_write_a_path() {
        for (written, form) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/%41%2D%2e%5F%7e", "/A-._~"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%20b", "/a%20b"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/./a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("//a///b", "/a/b"),
            ("//", "/"),
            ("", "/"),
            ("*", "/*"),
            ("/...", "/..."),
            ("/.hidden", "/.hidden"),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            ("/%", "/%"),
            ("/%é", "/%é"),
            ("/%2%35", "/%2%35"),
            ("/%%36%31", "/%%361"),
            ("/%6%2fa", "/%6%2fa"),
            ("/%%7a", "/%z"),
        ] {
            assert_eq!(normalise_path(written), form, "{written:?}");
            assert_eq!(normalise_path(form), form, "{form:?} is its own form");
        }
    }

    #[test]
    fn what_is_in_its_form_is_not_copied() {
        assert!(matches!(normalise_path("/api/users"), Cow::Borrowed(_)));
    }
}
