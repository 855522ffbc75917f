//! Target of a route's redirect: a path or a URL, made from a template. A client must not be able to choose the
//! target's host, so the only value allowed in the host is the host of the request.

use http::StatusCode;
use http::uri::Authority;
use regex::Regex;
use serde::{Deserialize, Serialize, Serializer};

use super::template::{Template, TemplatePart, Value};

/// Status code of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct RedirectStatus(pub StatusCode);

impl Default for RedirectStatus {
    /// Returns 308, which keeps method and body (RFC 9110 15.4.9).
    fn default() -> Self {
        RedirectStatus(StatusCode::PERMANENT_REDIRECT)
    }
}

impl TryFrom<i64> for RedirectStatus {
    type Error = String;
    fn try_from(status: i64) -> Result<Self, String> {
        let known = u16::try_from(status).ok().filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
        let status = known.and_then(|status| StatusCode::from_u16(status).ok());
        status
            .map(RedirectStatus)
            .ok_or_else(|| "not the status code of a redirect; expected 301, 302, 303, 307 or 308".to_owned())
    }
}

impl Serialize for RedirectStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.0.as_u16())
    }
}

/// Section of the redirect's URL in which a part of the target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Scheme, host and port.
    Host,
    /// Path.
    Path,
    /// Query, after the question mark.
    Query,
    /// Fragment, after the number sign.
    Fragment,
}

/// Template of the target to which clients are redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectTarget {
    /// Parts of the target in order, each with the section of the URL in which it is.
    pub parts: Vec<(Section, TemplatePart)>,
    /// True if the target is a path on the request's host; false: the target has a host.
    pub is_path: bool,
}

impl RedirectTarget {
    /// Parses a target. `$1` and `$name` in `text` are groups of `pattern`.
    ///
    /// # Errors
    /// Returns the reason if `text` is not a valid target, or if a client could choose the target's host.
    pub fn parse(text: &str, pattern: Option<&Regex>) -> Result<Self, String> {
        let nowhere = || {
            format!(
                "{text:?} is not a valid redirect target; expected a path or a URL, as in \
                 \"https://new.example.com/\""
            )
        };
        // Backslashes are refused, because browsers treat a backslash as a slash.
        if text.chars().any(|c| !c.is_ascii_graphic() || c == '\\') {
            return Err(nowhere());
        }
        let mut parts = Template::parse(text, true, pattern)?.parts.into_iter();
        let mut reader = Reader::default();
        match (parts.next(), parts.as_slice().first()) {
            (Some(TemplatePart::Text(first)), _) => reader.begin(first).ok_or_else(nowhere)?,
            (Some(TemplatePart::Value(Value::Path)), _) => reader.begin_with_path(),
            (Some(TemplatePart::Value(Value::Scheme)), Some(TemplatePart::Text(next)))
                if next.starts_with("://") =>
            {
                reader.parts.push((Section::Host, TemplatePart::Value(Value::Scheme)));
                let Some(TemplatePart::Text(next)) = parts.next() else { return Err(nowhere()) };
                reader.begin_host("://", &next["://".len()..]);
            }
            _ => return Err(nowhere()),
        }
        for part in parts {
            match part {
                TemplatePart::Text(text) => reader.text(&text),
                TemplatePart::Value(value) => reader.value(value)?,
            }
        }
        // `host` contains an `h` for each `$host`, so it is only empty if the target has no host at all.
        if !reader.is_path && reader.host.parse::<Authority>().is_ok_and(|it| it.host().is_empty()) {
            return Err(nowhere());
        }
        match reader.is_path || reader.host.parse::<Authority>().is_ok() {
            true => Ok(RedirectTarget { parts: reader.parts, is_path: reader.is_path }),
            false => Err(nowhere()),
        }
    }
}

/// Reader of a target's template. It tracks the section of the URL that it has reached.
struct Reader {
    parts: Vec<(Section, TemplatePart)>,
    section: Section,
    is_path: bool,
    /// Host that has been read so far, with an `h` in place of each `$host`.
    host: String,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { parts: Vec::new(), section: Section::Path, is_path: true, host: String::new() }
    }
}

impl Reader {
    /// Reads the first text of a target. Returns `None` if the text is the beginning of neither a path nor a URL.
    fn begin(&mut self, text: String) -> Option<()> {
        if let Some(rest) = text.strip_prefix("//") {
            self.begin_host("//", rest);
        } else if text.starts_with('/') {
            self.text(&text);
        } else {
            let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme))?;
            self.begin_host(&format!("{scheme}://"), rest);
        }
        Some(())
    }

    fn begin_host(&mut self, before: &str, rest: &str) {
        self.section = Section::Host;
        self.is_path = false;
        self.push_text(before);
        self.text(rest);
    }

    fn begin_with_path(&mut self) {
        self.parts.push((Section::Path, TemplatePart::Value(Value::Path)));
    }

    fn text(&mut self, text: &str) {
        let ends: &[char] = match self.section {
            Section::Host => &['/', '?', '#'],
            Section::Path => &['?', '#'],
            Section::Query => &['#'],
            Section::Fragment => &[],
        };
        let end = text.find(ends).unwrap_or(text.len());
        if self.section == Section::Host {
            self.host.push_str(&text[..end]);
        }
        self.push_text(&text[..end]);
        let Some(sign) = text[end..].chars().next() else { return };
        self.section = match sign {
            '/' => Section::Path,
            '?' => Section::Query,
            _ => Section::Fragment,
        };
        // The sign is the first character of the next section.
        self.push_text(&text[end..=end]);
        self.text(&text[end + 1..]);
    }

    fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some((section, TemplatePart::Text(before))) if *section == self.section => before.push_str(text),
            _ => self.parts.push((self.section, TemplatePart::Text(text.to_owned()))),
        }
    }

    fn value(&mut self, value: Value) -> Result<(), String> {
        match (self.section, value) {
            (Section::Host, Value::Host) => self.host.push('h'),
            // `$path` begins with a slash, and the slash ends the host.
            (Section::Host, Value::Path) => self.section = Section::Path,
            (Section::Host, _) => {
                return Err("text from the client could become a part of the redirect's host; put a `/` \
                            after the host"
                    .to_owned());
            }
            (Section::Path, Value::Query) => {
                return Err("`$query` is only allowed after a `?`".to_owned());
            }
            _ => {}
        }
        self.parts.push((self.section, TemplatePart::Value(value)));
        Ok(())
    }
}

fn is_scheme(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RedirectTarget, String> {
        RedirectTarget::parse(text, Some(&Regex::new("^/(a)/(?<b>.*)$").unwrap()))
    }

    #[test]
    fn paths_and_urls_are_targets() {
        for (text, is_path) in [
            ("/new", true),
            ("/", true),
            ("/$1", true),
            ("$path", true),
            ("$path?$query", true),
            ("/new?a=$1&$query#$b", true),
            ("//cdn.example.com/x", false),
            ("https://new.example.com", false),
            ("https://new.example.com/$b?$query", false),
            ("https://new.example.com$path?$query", false),
            ("https://new.example.com?from=$path", false),
            ("https://new.example.com#$1", false),
            ("https://$host$path", false),
            ("https://www.$host:8443/$1", false),
            ("$scheme://new.example.com/", false),
            ("$scheme://$host/", false),
            ("https://[2001:db8::1]:8443/$1", false),
            ("/cost$$", true),
        ] {
            assert_eq!(parse(text).map(|target| target.is_path), Ok(is_path), "{text}");
        }
    }

    #[test]
    fn target_parts_get_their_url_sections() {
        let target = parse("https://a.example$path?b=$1#c").unwrap();
        let text = |text: &str| TemplatePart::Text(text.to_owned());
        assert_eq!(
            target.parts,
            [
                (Section::Host, text("https://a.example")),
                (Section::Path, TemplatePart::Value(Value::Path)),
                (Section::Query, text("?b=")),
                (Section::Query, TemplatePart::Value(Value::Group(1))),
                (Section::Fragment, text("#c")),
            ]
        );
    }

    #[test]
    fn target_with_client_chosen_host_is_refused() {
        for (text, reason) in [
            ("https://$1/", "could become a part of the redirect's host"),
            ("https://new.example.com$1", "could become a part of the redirect's host"),
            ("https://new.example.com:$1/", "could become a part of the redirect's host"),
            ("https://$1.example.com/", "could become a part of the redirect's host"),
            ("https://new.example.com$query", "could become a part of the redirect's host"),
            ("//$1/x", "could become a part of the redirect's host"),
            ("$1", "is not a valid redirect target"),
            ("$host/x", "is not a valid redirect target"),
            ("$scheme:$path", "is not a valid redirect target"),
            ("$query", "is not a valid redirect target"),
            ("/\\evil.example/", "is not a valid redirect target"),
            ("/$query", "after a `?`"),
            ("there", "is not a valid redirect target"),
            ("", "is not a valid redirect target"),
            ("https://", "is not a valid redirect target"),
            ("https:///x", "is not a valid redirect target"),
            ("//", "is not a valid redirect target"),
            ("https://a b/", "is not a valid redirect target"),
            ("/b\r\nX: 1", "is not a valid redirect target"),
            ("/b\u{e9}", "is not a valid redirect target"),
            ("1http://a/", "is not a valid redirect target"),
            ("/$9", "there is no `$9`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn redirect_status_is_one_of_five_codes() {
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(RedirectStatus::try_from(status).unwrap().0.as_u16(), status as u16);
        }
        for status in [-1, 0, 200, 300, 304, 305, 306, 309, 400, 65536 + 301] {
            assert!(RedirectStatus::try_from(status).is_err(), "{status}");
        }
    }
}
