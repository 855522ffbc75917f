//! Paths as routing compares them, and as backends get them. What a client may write in many ways has one form here,
//! as it has for a backend; otherwise `/%61dmin` or `/x/../admin` would pass by the route `/admin`, and by its
//! policies. What servers do not agree on, as whether `%2F` is a slash, is read in each of their ways ([`readings`]):
//! routing makes sure that all of them come to the same route.

mod readings;

use std::borrow::Cow;
use std::fmt;

/// Why a path is not looked at any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// It does not begin with a slash.
    NoSlash,
    /// What no path has (RFC 3986 3.3): some servers take it for a slash, or for the path's end.
    Delimiter(char),
    /// A percent sign without two hexadecimal digits behind it.
    Percent,
    /// A control character that is not percent-encoded.
    Control,
    /// An encoded NUL, at which a path ends for programs in C (RFC 3986 7.3).
    Nul,
    /// A character in more bytes than it takes (RFC 3629 10), by which some servers let a slash pass.
    Overlong,
    /// More `..` than there is above.
    AboveRoot,
    /// A dot segment that only some servers see.
    HiddenDots,
    /// What some servers take for another path, for which another route holds.
    Ambiguous,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPath::Delimiter(sign) => return write!(f, "the path has a '{sign}' in it, which no path has"),
            BadPath::NoSlash => "the request's target is no path",
            BadPath::Percent => "the path has a '%' without two hexadecimal digits behind it",
            BadPath::Control => "the path has a control character in it; clients percent-encode those",
            BadPath::Nul => "the path has an encoded NUL in it, at which it would end for some servers",
            BadPath::Overlong => "the path has a character in it that is not UTF-8 as it should be",
            BadPath::AboveRoot => "the path leads above its root",
            BadPath::HiddenDots => "the path has a dot segment in it that not every server would see",
            BadPath::Ambiguous => "the path could be read in two ways that lead to different routes",
        })
    }
}

/// A path that has been read.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadPath<'p> {
    /// As rules compare it: what need not be percent-encoded is not (RFC 3986 6.2.2, and the delimiters that a
    /// segment may have), what must be is, with capital digits; dot segments are resolved, slashes merged.
    pub compared: Cow<'p, str>,
    /// As a backend gets it: as it came, but with dot segments resolved and letters decoded, about which servers
    /// do not agree with each other.
    pub sent: Cow<'p, str>,
    /// What servers make of it that take more for a slash, leave parameters or line ends out, or decode twice.
    pub others: Vec<String>,
}

impl ReadPath<'_> {
    /// Whether it is compared and sent as it was written, and there is no other way to read it.
    pub fn is_plain(&self) -> bool {
        matches!((&self.compared, &self.sent), (Cow::Borrowed(_), Cow::Borrowed(_)))
    }
}

/// What has become of a path that is not both compared and sent as it was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Paths {
    /// As rules compare it.
    pub compared: String,
    /// As a backend gets it.
    pub sent: String,
}

/// Reads a path. Allocates nothing where there is only one way to read it and the client has written it so.
///
/// # Errors
/// Where servers might take it for something that it does not look like.
pub fn read_path(path: &str) -> Result<ReadPath<'_>, BadPath> {
    if is_plain(path) {
        let path = Cow::Borrowed(path);
        return Ok(ReadPath { compared: path.clone(), sent: path, others: Vec::new() });
    }
    if path.is_empty() || path == "*" {
        // The second is for the server as a whole (RFC 9112 3.2.4).
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

/// Whether there is nothing about a path that anybody could read in another way.
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

/// What stands in a segment as it is (RFC 3986 3.3), but for the semicolon, behind which some see parameters.
fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// RFC 3986 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The byte that stands percent-encoded at the beginning of `text`.
fn escape(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let (b'%', high, low) = (*text.first()?, digit(1)?, digit(2)?) else { return None };
    u8::try_from(high * 16 + low).ok()
}

/// Decodes what need not be encoded, and makes sure that the rest can be decoded.
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
                // For a server that merges slashes first, it takes away another one.
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

/// The one form of a path, but for its slashes.
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
            push_escaped(&mut form, byte);
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    form
}

fn push_escaped(form: &mut String, byte: u8) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    form.extend(['%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// A path without empty segments, but for the last.
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
    fn one_form_for_every_way_to_write_a_path() {
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
    fn what_no_two_servers_agree_on_is_refused() {
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
    fn what_is_in_its_form_is_not_copied() {
        for path in ["/", "/api/users", "/.well-known/x", "/@me/a:b,c=(1)", "/a/.b/c..", "/a.b./c"] {
            assert!(read_path(path).unwrap().is_plain(), "{path}");
        }
    }
}
