//! Paths that servers read in different ways. Some servers decode `%2F` and `%5C` before they look for slashes, and
//! treat `\` as a slash (IIS). Some remove the text after `;` in a segment: before they decode (Tomcat), or after. If
//! a request passes two servers, its path may be decoded twice. A server may pass a decoded path to a URL parser, to a
//! line-based protocol or to a pattern that ends with `$`. Line ends in the path, or the text after them, may then be
//! lost.

use super::{BadPath, canonical, escape, has_dot_segment, merge_slashes};

/// Returns the normalised readings of `path` that differ from `compared`, the normalised `path` itself.
///
/// # Errors
/// Returns the reason if a reading contains a dot segment, or bytes that only an attacker sends.
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
        // If a server builds a URL from a decoded path, the text after a `?` or `#` is no longer part of the path.
        let beginning = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
        if beginning.len() < path.len() {
            others.add_decoded(beginning)?;
        }
    }
    Ok(others.found)
}

/// Collection of the readings that differ from `compared`.
struct Others<'p> {
    compared: &'p str,
    found: Vec<String>,
}

impl Others<'_> {
    /// Adds a decoded path, and the paths that result if a server drops control characters or the text after them.
    fn add_decoded(&mut self, path: &[u8]) -> Result<(), BadPath> {
        self.add(literal(path))?;
        if !path.iter().any(u8::is_ascii_control) {
            return Ok(());
        }
        // URL parsers remove tabs and line ends everywhere (URL standard, 4.4).
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

/// Returns an error if a decoded path contains bytes that could harm a backend: NUL or overlong UTF-8.
fn check(decoded: &[u8]) -> Result<(), BadPath> {
    if decoded.contains(&0) {
        return Err(BadPath::Nul);
    }
    if decoded.windows(2).any(is_overlong) {
        return Err(BadPath::Overlong);
    }
    Ok(())
}

/// Returns the normalised form of a decoded path, in which a backslash becomes a slash.
fn literal(path: &[u8]) -> String {
    let mut encoded = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b'\\' => encoded.push(b'/'),
            // In a decoded path, a percent sign is only a character. Encode it, so that it is not decoded again.
            b'%' => encoded.extend(*b"%25"),
            byte => encoded.push(*byte),
        }
    }
    canonical(&encoded)
}

/// Returns true if `bytes` are the first two bytes of a character that needs fewer bytes in UTF-8 (RFC 3629 3).
fn is_overlong(bytes: &[u8]) -> bool {
    matches!(bytes, [0xC0 | 0xC1, 0x80..=0xBF] | [0xE0, 0x80..=0x9F] | [0xF0, 0x80..=0x8F])
}

/// Decodes every percent-encoded byte.
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

/// Removes the text from a semicolon to the end of its segment. Each byte in `slashes` ends a segment.
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
    fn every_other_reading_of_a_path_is_found() {
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
    fn hidden_dot_segments_are_refused() {
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
