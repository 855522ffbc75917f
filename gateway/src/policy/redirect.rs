//! `redirect`: sends clients to another URL. The route's template builds the URL from parts of the request.

use http::{HeaderValue, StatusCode};
use regex::{Captures, Regex};

use crate::config::{self, RedirectTarget, Section, TemplatePart, Value, normalise_host, push_encoded};
use crate::reply::{Problem, Reply};

/// Redirect of a route.
#[derive(Debug)]
pub struct Redirect {
    target: RedirectTarget,
    /// Pattern whose groups the target names.
    pattern: Option<Regex>,
    status: StatusCode,
}

/// Parts of a request that a target can name.
pub struct Asked<'r> {
    /// Path that was compared with the route's pattern. The groups of the pattern are taken from it.
    pub compared: &'r str,
    /// Path as the client wrote it, but without dot segments.
    pub sent: &'r str,
    /// Query: the bytes after the question mark.
    pub query: &'r [u8],
    /// Host, as the client wrote it; `None` if there is no valid host.
    pub host: Option<&'r str>,
    /// True if the request came over TLS.
    pub is_https: bool,
}

impl Redirect {
    /// Compiles the redirect of `route`. Returns `None` if the route has no redirect.
    ///
    /// # Errors
    /// Returns a description of the fault if the target is invalid, which the validation of the configuration
    /// has excluded.
    pub fn new(route: &config::Route) -> Result<Option<Self>, String> {
        if route.redirect.is_empty() {
            return Ok(None);
        }
        let pattern = route.path_regex.as_ref().map(|pattern| pattern.0.clone());
        let target = RedirectTarget::parse(&route.redirect, pattern.as_ref())?;
        Ok(Some(Redirect { target, pattern, status: route.redirect_status.0 }))
    }

    /// Returns the local reply to a request: the redirect, or 400 if the request lacks a valid Host that the
    /// target needs.
    pub fn answer(&self, asked: &Asked<'_>) -> Reply {
        let location = self.location(asked).and_then(|location| HeaderValue::from_str(&location).ok());
        match location {
            Some(location) => Reply::redirect_with(self.status, location),
            None => {
                Reply::new(Problem::BadRequest, "the request has no valid Host, which the redirect needs")
            }
        }
    }

    /// Returns the URL to which the client is redirected. Returns `None` if the target needs the host of the
    /// request, but the request has no valid host.
    fn location(&self, asked: &Asked<'_>) -> Option<String> {
        let mut values = Values { asked, captures: None, pattern: self.pattern.as_ref() };
        let mut location = String::new();
        // True after an empty `$query`: the separator before it may have to be removed.
        let mut is_open = false;
        for (section, part) in &self.target.parts {
            match part {
                TemplatePart::Text(text) => {
                    let is_end = *section == Section::Fragment;
                    let text = if is_open && !is_end { text.strip_prefix('&').unwrap_or(text) } else { text };
                    if is_open && is_end {
                        close(&mut location);
                    }
                    location.push_str(text);
                    is_open = false;
                }
                TemplatePart::Value(Value::Query) if asked.query.is_empty() => {
                    if location.ends_with('&') {
                        location.pop();
                    }
                    is_open = true;
                }
                TemplatePart::Value(value) => {
                    values.push(&mut location, *value, *section)?;
                    is_open = false;
                }
            }
        }
        if is_open {
            close(&mut location);
        }
        if self.target.is_path {
            // A host would follow two slashes (RFC 3986 4.2), so only one slash stays at the start of a path.
            let doubled = location.len() - location.trim_start_matches('/').len();
            location.drain(1..doubled.max(1));
        }
        Some(location)
    }
}

/// Removes a question mark at the end of `location`.
fn close(location: &mut String) {
    if location.ends_with('?') {
        location.pop();
    }
}

/// Values for the target, from one request. The pattern is matched only if the target names one of its groups.
struct Values<'r> {
    asked: &'r Asked<'r>,
    captures: Option<Captures<'r>>,
    pattern: Option<&'r Regex>,
}

impl Values<'_> {
    fn push(&mut self, into: &mut String, value: Value, section: Section) -> Option<()> {
        let in_query = section == Section::Query;
        let asked = self.asked;
        match value {
            Value::Group(number) => {
                if self.captures.is_none() {
                    self.captures = self.pattern.and_then(|pattern| pattern.captures(asked.compared));
                }
                let group = self.captures.as_ref().and_then(|captures| captures.get(number));
                push_encoded(into, group.map_or("", |group| group.as_str()).as_bytes(), in_query);
            }
            // The client could not request a path without a leading slash ("OPTIONS *") again.
            Value::Path => {
                let path = if asked.sent.starts_with('/') { asked.sent } else { "/" };
                push_encoded(into, path.as_bytes(), in_query);
            }
            Value::Query => push_query(into, asked.query),
            Value::Host => {
                into.push_str(&asked.host.and_then(|host| normalise_host(host).ok())?);
            }
            Value::Scheme => into.push_str(if asked.is_https { "https" } else { "http" }),
        }
        Some(())
    }
}

/// Appends a query, and percent-encodes only bytes that a URL must not contain.
fn push_query(into: &mut String, query: &[u8]) {
    for byte in query {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'`' => push_encoded(into, &[*byte], true),
            byte if byte.is_ascii_graphic() => into.push(char::from(*byte)),
            byte => push_encoded(into, &[*byte], true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> =
        Asked { compared: "/old/a", sent: "/old/a", query: b"", host: Some("A.test:8080"), is_https: false };

    fn redirect(pattern: &str, target: &str) -> Redirect {
        let pattern =
            Some(pattern).filter(|it| !it.is_empty()).map(|it| config::Pattern(Regex::new(it).unwrap()));
        let redirect = target.to_owned();
        Redirect::new(&config::Route { path_regex: pattern, redirect, ..Default::default() })
            .unwrap()
            .unwrap()
    }

    fn at<'a>(path: &'a str, query: &'a str) -> Asked<'a> {
        Asked { compared: path, sent: path, query: query.as_bytes(), ..ASKED }
    }

    fn location(pattern: &str, target: &str, asked: &Asked<'_>) -> String {
        let reply = redirect(pattern, target).answer(asked);
        assert_eq!(reply.status(), 308, "{target}");
        reply.fields()["location"].to_str().unwrap().to_owned()
    }

    #[test]
    fn target_values_are_filled_in() {
        let asked = at("/blog/42/a%20b&c", "x=1&y=2");
        for (target, expected) in [
            ("/new", "/new"),
            ("https://new.example.com/", "https://new.example.com/"),
            ("/$1_old/$2", "/42_old/a%20b&c"),
            ("/${id}x?$query", "/42x?x=1&y=2"),
            ("/new?id=$1&name=$2", "/new?id=42&name=a%20b%26c"),
            ("/new?id=$1&$query#$1", "/new?id=42&x=1&y=2#42"),
            ("https://new.example.com$path", "https://new.example.com/blog/42/a%20b&c"),
            ("https://new.example.com$path?$query", "https://new.example.com/blog/42/a%20b&c?x=1&y=2"),
            ("$path?from=$host", "/blog/42/a%20b&c?from=a.test"),
            ("https://$host:8443/$1", "https://a.test:8443/42"),
            ("$scheme://www.$host/", "http://www.a.test/"),
            ("/cost/$$1", "/cost/$1"),
        ] {
            assert_eq!(location("^/blog/(?<id>[0-9]+)/(.*)$", target, &asked), expected, "{target}");
        }
        let by_https = Asked { is_https: true, ..at("/", "") };
        assert_eq!(location("", "$scheme://new.example.com/", &by_https), "https://new.example.com/");
    }

    #[test]
    fn an_empty_query_leaves_no_separator_behind() {
        for (target, with, without) in [
            ("/new?$query", "/new?x=1", "/new"),
            ("/new?a=1&$query", "/new?a=1&x=1", "/new?a=1"),
            ("/new?$query&a=1", "/new?x=1&a=1", "/new?a=1"),
            ("/new?$query#c", "/new?x=1#c", "/new#c"),
            ("/new?", "/new?", "/new?"),
        ] {
            assert_eq!(location("", target, &at("/old", "x=1")), with, "{target}");
            assert_eq!(location("", target, &at("/old", "")), without, "{target}");
        }
    }

    #[test]
    fn no_request_leads_to_another_host() {
        for (pattern, target, path, expected) in [
            ("^/old(.*)$", "/$1", "/old/evil.example/x", "/evil.example/x"),
            ("^/old(.*)$", "/$1", "/old//evil.example", "/evil.example"),
            ("^/old(.*)$", "/$1", "/old%2F%2Fevil.example", "/%2F%2Fevil.example"),
            ("^/old(.*)$", "/$1", "/old%5Cevil.example", "/%5Cevil.example"),
            ("^/old/?(a?)$", "/$1/evil.example", "/old/", "/evil.example"),
            ("", "$path", "//evil.example/..", "/evil.example/.."),
            (
                "^/(.*)$",
                "https://new.example.com/$1",
                "/@evil.example",
                "https://new.example.com/@evil.example",
            ),
            (
                "^/(.*)$",
                "https://new.example.com/$1",
                "//evil.example",
                "https://new.example.com//evil.example",
            ),
            ("", "https://new.example.com$path", "//evil.example", "https://new.example.com//evil.example"),
            ("", "https://new.example.com$path", "*", "https://new.example.com/"),
        ] {
            assert_eq!(location(pattern, target, &at(path, "")), expected, "{target} of {path}");
        }
    }

    #[test]
    fn control_bytes_are_encoded_in_location() {
        let query = b"a=\r\nSet-Cookie: b=1\0\xff\"<>`#\\|{}";
        let asked = Asked { query, ..at("/old\r\nX: 1", "") };
        assert_eq!(
            location("(?s)^/old(.*)$", "/new$1?$query", &asked),
            "/new%0D%0AX:%201?a=%0D%0ASet-Cookie:%20b=1%00%FF%22%3C%3E%60%23%5C|{}"
        );
    }

    #[test]
    fn request_without_host_gets_400_if_target_needs_it() {
        for host in [None, Some("a b"), Some("")] {
            let asked = Asked { host, ..ASKED };
            assert_eq!(redirect("", "https://www.$host/").answer(&asked).status(), 400, "{host:?}");
            assert_eq!(redirect("", "/new").answer(&asked).status(), 308, "{host:?}");
        }
    }
}
