//! Rewrites the path of a request for the backend, if the route is configured to do so.

use http::Uri;
use http::uri::PathAndQuery;
use pingora::http::RequestHeader;
use pingora::prelude::*;
use regex::Regex;

use super::Verdict;
use crate::config::{self, Paths, Template, TemplatePart, Value, read_path};
use crate::reply::{Problem, Reply};

/// Rule that makes the path for the backend from the path of the request.
#[derive(Debug)]
pub enum Rewrite {
    /// The path stays.
    Keep,
    /// The gateway removes this prefix.
    Strip(String),
    /// The gateway replaces the first match of the pattern by the template. The template is filled with the
    /// groups of the match.
    Replace(Regex, Template),
}

impl Rewrite {
    /// Compiles the path rewrite of `route`.
    ///
    /// # Errors
    /// Returns a description of the fault if the template is invalid, which the validation of the configuration
    /// has excluded.
    pub fn new(route: &config::Route) -> Result<Self, String> {
        Ok(match (&route.path_prefix, &route.path_regex) {
            (Some(prefix), _) if route.strip_prefix => Rewrite::Strip(prefix.clone()),
            (_, Some(pattern)) if !route.rewrite.is_empty() => {
                let template = Template::parse(&route.rewrite, false, Some(&pattern.0))?;
                Rewrite::Replace(pattern.0.clone(), template)
            }
            _ => Rewrite::Keep,
        })
    }

    /// Returns the new path of a request; `None` if the path stays as `sent`. The request was routed by the
    /// path `compared`, and without a rewrite the backend gets the path `sent`.
    ///
    /// Refuses a request whose new path has dot segments, because a backend would resolve them to a path that
    /// may be on another route. A replacement can create a dot segment: `/f../x` becomes `/files/../x` if `/f`
    /// becomes `/files/`.
    pub fn check(&self, compared: &str, sent: &str) -> Verdict<Option<String>> {
        let path = self.apply(compared, sent);
        let is_replaced = matches!(self, Rewrite::Replace(..));
        match path.filter(|path| !is_replaced || !has_dot_segments(path)) {
            None if is_replaced => {
                let detail = "the rewritten path has dot segments, which a backend could resolve to another \
                     path";
                Verdict::Reply(Reply::new(Problem::BadRequest, detail))
            }
            path => Verdict::Continue(path),
        }
    }

    /// Returns the new path, without a check for dot segments.
    fn apply(&self, compared: &str, sent: &str) -> Option<String> {
        let rest = match self {
            Rewrite::Keep => return None,
            // The rest of the path stays as the client wrote it. But if the client wrote the prefix in another
            // form, the rest of the routed path is used.
            Rewrite::Strip(prefix) => {
                let below = |path: &'_ str| path.strip_prefix(prefix.as_str()).map(str::to_owned);
                below(sent).filter(|rest| is_whole(prefix, rest)).or_else(|| below(compared))?
            }
            Rewrite::Replace(pattern, template) => replace(pattern, template, compared),
        };
        // The path must not begin with two slashes, because a backend that redirects might send the client to
        // the host in `//host/`.
        Some(format!("/{}", rest.trim_start_matches('/')))
    }
}

/// Changes the path of a request and keeps the query. The new path is `rewritten`, or else the path to send in
/// `paths`. If both are `None`, the path stays as the client wrote it.
///
/// # Errors
/// Returns an error if the new path is not valid, which the validation of the configuration has excluded.
pub fn on_request(request: &mut RequestHeader, rewritten: Option<&str>, paths: Option<&Paths>) -> Result<()> {
    let written = request.uri.path();
    let resolved = || paths.map(|paths| &*paths.sent).filter(|sent| *sent != written);
    let Some(path) = rewritten.or_else(resolved) else { return Ok(()) };
    let mut target = path.to_owned();
    if let Some(query) = request.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut parts = request.uri.clone().into_parts();
    let target = PathAndQuery::try_from(target).or_err(InternalError, "a rewritten path")?;
    parts.path_and_query = Some(target);
    request.set_uri(Uri::from_parts(parts).or_err(InternalError, "a rewritten target")?);
    Ok(())
}

/// Returns `path` with the first match of `pattern` replaced.
fn replace(pattern: &Regex, template: &Template, path: &str) -> String {
    let Some(groups) = pattern.captures(path) else { return path.to_owned() };
    let (start, end) = groups.get(0).map_or((0, 0), |all| (all.start(), all.end()));
    let mut replaced = path[..start].to_owned();
    for part in &template.parts {
        match part {
            TemplatePart::Text(text) => replaced.push_str(text),
            TemplatePart::Value(Value::Group(number)) => {
                replaced.push_str(groups.get(*number).map_or("", |group| group.as_str()));
            }
            // The template of a rewrite can name only groups.
            TemplatePart::Value(_) => {}
        }
    }
    replaced.push_str(&path[end..]);
    replaced
}

/// Returns true if some servers would find a dot segment in `path`, for example an encoded one.
fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | "..")) || read_path(path).is_err()
}

/// Returns true if the prefix ends at the end of a segment.
fn is_whole(prefix: &str, rest: &str) -> bool {
    prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(pattern: &str, template: &str) -> Rewrite {
        let pattern = Regex::new(pattern).unwrap();
        let template = Template::parse(template, false, Some(&pattern)).unwrap();
        Rewrite::Replace(pattern, template)
    }

    #[test]
    fn prefix_is_removed() {
        for (prefix, path, rest) in [
            ("/api", "/api", "/"),
            ("/api", "/api/", "/"),
            ("/api", "/api/users", "/users"),
            ("/static/", "/static/logo", "/logo"),
            ("/", "/any", "/any"),
        ] {
            let strip = Rewrite::Strip(prefix.to_owned());
            assert_eq!(strip.apply(path, path).as_deref(), Some(rest), "{path}");
        }
        assert_eq!(Rewrite::Keep.apply("/api", "/api"), None);
    }

    #[test]
    fn rest_after_prefix_stays_as_sent() {
        let strip = Rewrite::Strip("/api".to_owned());
        for (compared, sent, rest) in [
            ("/api/a@b/c", "/api/a%40b//c", "/a%40b//c"),
            ("/api/a/b", "//api/a//b", "/a/b"),
            ("/api/a@b", "/api/a%40b", "/a%40b"),
        ] {
            assert_eq!(strip.apply(compared, sent).as_deref(), Some(rest), "{sent}");
        }
    }

    #[test]
    fn unchanged_path_goes_up_without_dot_segments() {
        let mut request = RequestHeader::build("GET", b"/x/../a%40b?q=/../", None).unwrap();
        let paths = Paths { compared: "/a@b".to_owned(), sent: "/a%40b".to_owned() };
        on_request(&mut request, None, Some(&paths)).unwrap();
        assert_eq!(request.raw_path(), b"/a%40b?q=/../");
    }

    #[test]
    fn the_query_stays() {
        let mut request = RequestHeader::build("GET", b"/api/users?page=2", None).unwrap();
        on_request(&mut request, Some("/users"), None).unwrap();
        assert_eq!(request.raw_path(), b"/users?page=2");
        on_request(&mut request, None, None).unwrap();
        assert_eq!(request.raw_path(), b"/users?page=2");
    }

    #[test]
    fn a_match_is_replaced() {
        for (pattern, template, path, expected) in [
            ("^/v[0-9]+/", "/", "/v2/users", "/users"),
            ("^/v([0-9]+)/(.*)$", "/$2/version/$1", "/v2/users", "/users/version/2"),
            ("^/old", "new", "/old/x", "/new/x"),
            ("^/blog/([0-9]+)/(.*)$", "/$1_old/$2", "/blog/42/hello%20world", "/42_old/hello%20world"),
            ("^/blog/([0-9]+)/(.*)$", "/p$1x", "/blog/42/a", "/p42x"),
            ("^/blog/(?<id>[0-9]+)", "/${id}_old", "/blog/42/a", "/42_old/a"),
            ("^/a(/b)?(/c)?", "/x$1$2", "/a/c", "/x/c"),
            ("b", "$0$$0", "/abc", "/ab$0c"),
            ("^/a/(.*)$", "/$1/x", "/a/", "/x"),
        ] {
            assert_eq!(replace(pattern, template).apply(path, path).as_deref(), Some(expected), "{template}");
        }
    }

    #[test]
    fn rewrite_that_creates_a_dot_segment_gets_400() {
        let files = replace("^/f(.*)$", "/files/$1");
        for path in ["/f../secret", "/f./secret", "/f..%2Fsecret", "/f..", "/f/..;/secret", "/f..;a/secret"] {
            match files.check(path, path) {
                Verdict::Reply(reply) => assert_eq!(reply.status(), 400, "{path}"),
                Verdict::Continue(path) => panic!("{path:?}"),
            }
        }
        for (path, expected) in [("/fa..b", "/files/a..b"), ("/f...", "/files/..."), ("/f.x", "/files/.x")] {
            match files.check(path, path) {
                Verdict::Continue(path) => assert_eq!(path.as_deref(), Some(expected)),
                Verdict::Reply(_) => panic!("{path} is refused"),
            }
        }
    }
}
