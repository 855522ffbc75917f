//! How servers read what others do not read in the same way. Some decode `%2F` and `%5C` before they look for slashes,
//! and take `\` for one (IIS); some leave out what follows a `;` in a segment, before they decode (Tomcat) or after;
//! where two stand in a row, a path may be decoded twice; and who gives a decoded path to a parser of URLs, to a protocol
//! of lines or to a pattern that ends with `$` may lose the line ends in it, or what stands behind them.

use super::{BadPath, canonical, escape, has_dot_segment, merge_slashes};

/// Every other way to read `path`, which is compared as `compared`, each in the form that rules compare.
///
/// # Errors
/// Where one of them has a dot segment in it, or something else that nobody writes who means no harm.
pub(super) fn of(path: &str, compared: &str) -> Result<Vec<String>, BadPath> {
    if !path.contains(['%', ';']) {
        return Ok(Vec::new());
    }
    let cut = without_parameters(path.as_bytes(), b"/");
    let once = decode(path.as_bytes());
    let twice = decode(&once);
    let decoded = [
        decode(&cut),
        without_parameters(&once, b"/"),
        without_parameters(&once, b"/\\"),
        once,
        without_parameters(&twice, b"/"),
        without_parameters(&twice, b"/\\"),
        twice,
    ];
    let mut others = Others { compared, found: Vec::new() };
    others.add(canonical(&cut))?;
    for path in &decoded {
        check(path)?;
        others.add_decoded(path)?;
        // Who puts a path together again from its decoded parts may look for a query in it.
        let beginning = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
        if beginning.len() < path.len() {
            others.add_decoded(beginning)?;
        }
    }
    Ok(others.found)
}

/// What has been found that is not as the path is compared anyhow.
struct Others<'p> {
    compared: &'p str,
    found: Vec<String>,
}

impl Others<'_> {
    /// A path that has been decoded, and what is left of it without the control characters in it.
    fn add_decoded(&mut self, path: &[u8]) -> Result<(), BadPath> {
        self.add(literal(path))?;
        if !path.iter().any(u8::is_ascii_control) {
            return Ok(());
        }
        // Parsers of URLs drop these wherever they stand (URL standard, 4.4).
        let dropped: Vec<u8> =
            path.iter().copied().filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n')).collect();
        self.add(literal(&dropped))?;
        let line = path.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        self.add(literal(line))?;
        let end = path.iter().rposition(|byte| !byte.is_ascii_control()).map_or(0, |last| last + 1);
        self.add(literal(&path[..end]))
    }

    fn add(&mut self, reading: String) -> Result<(), BadPath> {
        if has_dot_segment(reading.as_bytes()) {
            return Err(BadPath::HiddenDots);
        }
        let reading = merge_slashes(&reading);
        if reading != self.compared && !self.found.contains(&reading) {
            self.found.push(reading);
        }
        Ok(())
    }
}

/// Refuses what would do harm where it is decoded.
fn check(decoded: &[u8]) -> Result<(), BadPath> {
    if decoded.contains(&0) {
        return Err(BadPath::Nul);
    }
    if decoded.windows(2).any(is_overlong) {
        return Err(BadPath::Overlong);
    }
    Ok(())
}

/// The form of a path that has been decoded, and in which a backslash is a slash.
fn literal(path: &[u8]) -> String {
    let mut encoded = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b'\\' => encoded.push(b'/'),
            // A percent sign that is one, and no escape.
            b'%' => encoded.extend(*b"%25"),
            byte => encoded.push(*byte),
        }
    }
    canonical(&encoded)
}

/// Whether a character begins with these two bytes that would fit into fewer (RFC 3629 3).
fn is_overlong(bytes: &[u8]) -> bool {
    matches!(bytes, [0xC0 | 0xC1, 0x80..=0xBF] | [0xE0, 0x80..=0x9F] | [0xF0, 0x80..=0x8F])
}

/// Every percent-encoded byte as it is.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(written) = path.get(at) {
        let escaped = escape(&path[at..]);
        decoded.push(escaped.unwrap_or(*written));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    decoded
}

/// The path without what follows a semicolon, in each segment; `slashes` end one.
fn without_parameters(path: &[u8], slashes: &[u8]) -> Vec<u8> {
    let mut inside = false;
    let keep = |byte: &&u8| {
        inside = **byte == b';' || inside && !slashes.contains(*byte);
        !inside
    };
    path.iter().filter(keep).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::read_path;
    use super::*;

    fn others(path: &str) -> Vec<String> {
        read_path(path).unwrap().others
    }

    #[test]
    fn each_way_to_read_a_path_is_found() {
        assert_eq!(others("/a%2fb"), ["/a/b"]);
        assert_eq!(others("/a%5Cb"), ["/a/b"]);
        assert_eq!(others("/a%252fb"), ["/a/b"]);
        assert_eq!(others("/a;x=1/b"), ["/a/b"]);
        assert_eq!(others("/a%3Bx/b"), ["/a;x/b", "/a/b"]);
        assert_eq!(others("/a;x%2fb"), ["/a", "/a/b", "/a;x/b"]);
        assert_eq!(others("/a%3fb"), ["/a"]);
        assert_eq!(others("/a%23b"), ["/a"]);
        assert_eq!(others("/a%20b%c3%a9"), [""; 0]);
        assert_eq!(others("/50%25"), [""; 0]);
        assert_eq!(others("/caf%e9"), [""; 0], "not UTF-8, and nothing else either");
        assert_eq!(others("/a%0d%0ab"), ["/ab", "/a"]);
        assert_eq!(others("/a%250ab"), ["/a%0Ab", "/ab", "/a"]);
        assert_eq!(others("/a%09b%1f"), ["/ab%1F", "/a%09b"]);
        assert_eq!(others("/a%0a%3fb"), ["/a%3Fb", "/a", "/a%0A"]);
    }

    #[test]
    fn dots_that_only_some_see_are_refused() {
        for path in [
            "/a%2f..%2fb",
            "/a%2f../b",
            "/a%5c%2e%2e/b",
            "/..;/b",
            "/a/..;x=1/b",
            "/a/.;/b",
            "/a/..%3b/b",
            "/a/..;%2fb",
            "/%252e%252e/b",
            "/a%252f..%252fb",
            "/..%3fx",
        ] {
            assert_eq!(read_path(path), Err(BadPath::HiddenDots), "{path}");
        }
        for path in ["/.%0a./b", "/a/..%0d", "/a/..%09/b", "/%252e%250a%252e/b", "/..%1f"] {
            assert_eq!(read_path(path), Err(BadPath::HiddenDots), "{path}");
        }
        assert_eq!(read_path("/a%2500"), Err(BadPath::Nul));
        for path in ["/%c0%af", "/%C0%AE%c0%ae/b", "/%e0%80%af", "/%f0%80%80%af", "/%25c0%25af"] {
            assert_eq!(read_path(path), Err(BadPath::Overlong), "{path}");
        }
    }
}
