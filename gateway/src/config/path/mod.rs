//! Normalised paths for routing, and the paths that backends get. Routing must treat paths as equal if a backend does.
//! Otherwise, `/%61dmin` or `/x/../admin` would bypass the route `/admin` and its policies. Servers read some paths
//! differently; for example, `%2F` is a slash for some of them. For such a path, [`readings`] returns every reading,
//! and routing checks that all readings match the same route.

mod readings;

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_encode_byte;

/// Reason why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// Path that does not begin with a slash.
    NoSlash,
    /// Character that no path may contain (RFC 3986 3.3). For some servers, it is a slash or the end of the path.
    Delimiter(char),
    /// Percent sign that is not followed by two hexadecimal digits.
    Percent,
    /// Control character that is not percent-encoded.
    Control,
    /// Percent-encoded NUL, at which the path ends for programs in C (RFC 3986 7.3).
    Nul,
    /// Character in UTF-8 with more bytes than it needs (RFC 3629 10). Some servers decode it to a slash.
    Overlong,
    /// Path with so many `..` that it is above the root.
    AboveRoot,
    /// Dot segment (`.` or `..`) that only some servers recognise.
    HiddenDots,
    /// Path that some servers read as a path of another route.
    Ambiguous,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPath::Delimiter(sign) => {
                return write!(f, "the path contains a '{sign}', which no path may contain");
            }
            BadPath::NoSlash => "the request's target is not a path",
            BadPath::Percent => "the path contains a '%' without two hexadecimal digits after it",
            BadPath::Control => "the path contains a control character that is not percent-encoded",
            BadPath::Nul => "the path contains an encoded NUL, where the path ends for some servers",
            BadPath::Overlong => "the path contains a character whose UTF-8 is longer than it needs to be",
            BadPath::AboveRoot => "the path leads above its root",
            BadPath::HiddenDots => "the path contains a dot segment that only some servers recognise",
            BadPath::Ambiguous => "the path could be read in two ways that lead to different routes",
        })
    }
}

/// Path of a request in its forms for routing, for the backend and for other servers.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadPath<'p> {
    /// Path that routing compares with routes. Characters that need no percent-encoding are decoded (RFC 3986 6.2.2),
    /// including delimiters that a segment may contain. Others are encoded with capital hexadecimal digits. Dot
    /// segments are resolved, and consecutive slashes are merged.
    pub compared: Cow<'p, str>,
    /// Path that the backend gets: the client's path, with dot segments resolved. Unreserved characters are decoded,
    /// because some servers would treat their encoded form differently.
    pub sent: Cow<'p, str>,
    /// Paths that other servers read: servers that treat more characters as slashes, remove parameters or line ends,
    /// or decode twice.
    pub others: Vec<String>,
}

impl ReadPath<'_> {
    /// Returns true if `compared` and `sent` are both the client's path, so that no server can read it differently.
    pub fn is_plain(&self) -> bool {
        matches!((&self.compared, &self.sent), (Cow::Borrowed(_), Cow::Borrowed(_)))
    }
}

/// Paths for routing and for the backend; only needed if one of them differs from the client's path.
#[derive(Debug, PartialEq, Eq)]
pub struct Paths {
    /// Path that routing compares with routes.
    pub compared: String,
    /// Path that the backend gets.
    pub sent: String,
}

/// Parses a path. Nothing is allocated if the client wrote the normalised form and every server reads it alike.
///
/// # Errors
/// Returns the reason if the path is invalid, or if servers may see a hidden `..` or another character in it.
pub fn read_path(path: &str) -> Result<ReadPath<'_>, BadPath> {
    if is_plain(path) {
        let path = Cow::Borrowed(path);
        return Ok(ReadPath { compared: path.clone(), sent: path, others: Vec::new() });
    }
    if path.is_empty() || path == "*" {
        // The target `*` is the server itself and not a path (RFC 9112 3.2.4).
        let compared = if path.is_empty() { "/" } else { "/*" };
        let compared = Cow::Owned(compared.to_owned());
        return Ok(ReadPath { compared, sent: Cow::Borrowed(path), others: Vec::new() });
    }
    if !path.starts_with('/') {
        return Err(BadPath::NoSlash);
    }
    if let Some(sign) = path.chars().find(|sign| matches!(sign, '\\' | '?' | '#')) {
        return Err(BadPath::Delimiter(sign));
    }
    let sent = resolve_dots(decode_unreserved(path)?)?;
    let compared = merge_slashes(&canonical(sent.as_bytes()));
    let others = readings::of(&sent, &compared)?;
    Ok(ReadPath { compared: Cow::Owned(compared), sent, others })
}

/// Returns true if the path is in its normalised form and every server reads it in the same way.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    let mut bytes = path.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let follows_slash = before == b'/';
        let is_dot_segment =
            byte == b'.' && follows_slash && matches!(bytes.peek(), None | Some(b'/' | b'.'));
        if !(is_pchar(byte) || byte == b'/' && !follows_slash) || is_dot_segment {
            return false;
        }
        before = byte;
    }
    path.starts_with('/')
}

/// Returns true if a path segment may contain the byte unencoded (RFC 3986 3.3). Returns false for the semicolon,
/// because some servers read parameters after it.
fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// Returns true if the byte is an unreserved character (RFC 3986 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Returns the byte that the percent-encoding at the beginning of `text` encodes; `None` if there is none.
fn escape(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let (b'%', high, low) = (*text.first()?, digit(1)?, digit(2)?) else { return None };
    u8::try_from(high * 16 + low).ok()
}

/// Decodes unreserved characters, and returns an error for a control character, NUL or invalid encoding.
fn decode_unreserved(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if path.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(BadPath::Control);
    }
    let mut decoded = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        let byte = escape(encoded.as_bytes()).ok_or(BadPath::Percent)?;
        if byte == 0 {
            return Err(BadPath::Nul);
        }
        let (encoded, after) = encoded.split_at(3);
        decoded.push_str(before);
        if is_unreserved(byte) {
            decoded.push(byte.into())
        } else {
            decoded.push_str(encoded)
        }
        rest = after;
    }
    decoded.push_str(rest);
    Ok(if decoded == path { Cow::Borrowed(path) } else { Cow::Owned(decoded) })
}

/// Resolves dot segments (RFC 3986 5.2.4).
fn resolve_dots(path: Cow<'_, str>) -> Result<Cow<'_, str>, BadPath> {
    if !has_dot_segment(path.as_bytes()) {
        return Ok(path);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => match segments.pop() {
                None => return Err(BadPath::AboveRoot),
                // A server that merges slashes first would remove the segment before this empty one.
                Some("") => return Err(BadPath::HiddenDots),
                Some(_) => {}
            },
            segment => segments.push(segment),
        }
    }
    if matches!(path.rsplit('/').next(), Some("." | "..")) {
        segments.push("");
    }
    Ok(Cow::Owned(format!("/{}", segments.join("/"))))
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b".."))
}

/// Returns the normalised form of a path, in which consecutive slashes are not merged yet.
fn canonical(path: &[u8]) -> String {
    let mut form = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(written) = path.get(at) {
        let escaped = escape(&path[at..]);
        let byte = escaped.unwrap_or(*written);
        let stays = escaped.is_none() && matches!(byte, b'/' | b';');
        if is_pchar(byte) || stays {
            form.push(byte.into());
        } else {
            form.push_str(percent_encode_byte(byte));
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    form
}

/// Replaces consecutive slashes with a single slash.
fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_spellings_have_one_normalised_form() {
        for (written, compared, sent) in [
            ("/", "/", "/"),
            ("/a/b/", "/a/b/", "/a/b/"),
            ("/%61dmin", "/admin", "/admin"),
            ("/%41%2D%2e%5F%7e", "/A-._~", "/A-._~"),
            ("/a%20b", "/a%20b", "/a%20b"),
            ("/a%c3%a9", "/a%C3%A9", "/a%c3%a9"),
            ("/aé", "/a%C3%A9", "/aé"),
            ("/%40me", "/@me", "/%40me"),
            ("/a%1bb", "/a%1Bb", "/a%1bb"),
            ("/a{b}|\"", "/a%7Bb%7D%7C%22", "/a{b}|\""),
            ("/x/../admin", "/admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin", "/admin"),
            ("/./a/./b", "/a/b", "/a/b"),
            ("/a/..", "/", "/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a/.", "/a/", "/a/"),
            ("//a///b", "/a/b", "//a///b"),
            ("//", "/", "//"),
            ("/a//./b", "/a/b", "/a//b"),
            ("", "/", ""),
            ("*", "/*", "*"),
            ("/...", "/...", "/..."),
            ("/.hidden", "/.hidden", "/.hidden"),
        ] {
            let read = read_path(written).unwrap();
            assert_eq!((&*read.compared, &*read.sent), (compared, sent), "{written:?}");
            assert_eq!(read.others, [""; 0], "{written:?}");
            assert_eq!(read_path(compared).unwrap().compared, compared, "{compared:?} is its own form");
        }
    }

    #[test]
    fn ambiguous_or_invalid_path_is_refused() {
        for (path, why) in [
            ("a", BadPath::NoSlash),
            ("/100%", BadPath::Percent),
            ("/%zz", BadPath::Percent),
            ("/%4", BadPath::Percent),
            ("/%+1", BadPath::Percent),
            ("/%é", BadPath::Percent),
            ("/%u002e", BadPath::Percent),
            ("/a\\b", BadPath::Delimiter('\\')),
            ("/a?b", BadPath::Delimiter('?')),
            ("/.#b", BadPath::Delimiter('#')),
            ("/a%00b", BadPath::Nul),
            ("/a\u{7f}", BadPath::Control),
            ("/..", BadPath::AboveRoot),
            ("/a/../../b", BadPath::AboveRoot),
            ("/%2e%2e/b", BadPath::AboveRoot),
            ("/a//../b", BadPath::HiddenDots),
        ] {
            assert_eq!(read_path(path), Err(why), "{path:?}");
        }
    }

    #[test]
    fn normalised_path_is_borrowed() {
        for path in ["/", "/api/users", "/.well-known/x", "/@me/a:b,c=(1)", "/a/.b/c..", "/a.b./c"] {
            assert!(read_path(path).unwrap().is_plain(), "{path}");
        }
    }
}
