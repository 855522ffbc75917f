//! The path that a backend gets to see, where a route changes it.

use http::Uri;
use http::uri::PathAndQuery;
use pingora::http::RequestHeader;
use pingora::prelude::*;
use regex::Regex;

use crate::config::{self, Paths};

/// What becomes of a path on its way up.
#[derive(Debug)]
pub enum Rewrite {
    /// It stays.
    Keep,
    /// This prefix is taken off.
    Strip(String),
    /// What the pattern matches first is replaced; `$1` stands for what its first group matches.
    Replace(Regex, String),
}

impl From<&config::Route> for Rewrite {
    fn from(route: &config::Route) -> Self {
        match (&route.path_prefix, &route.path_regex) {
            (Some(prefix), _) if route.strip_prefix => Rewrite::Strip(prefix.clone()),
            (_, Some(pattern)) if !route.rewrite.is_empty() => {
                Rewrite::Replace(pattern.0.clone(), route.rewrite.clone())
            }
            _ => Rewrite::Keep,
        }
    }
}

impl Rewrite {
    /// Changes the path of a request, whose query stays. `paths` says by what it was routed, and what goes up where
    /// nothing is changed; `None`: both are as the client has written it.
    ///
    /// # Errors
    /// Where what comes out is no path, which the configuration has excluded.
    pub fn on_request(&self, request: &mut RequestHeader, paths: Option<&Paths>) -> Result<()> {
        let written = request.uri.path();
        let (compared, sent) = paths.map_or((written, written), |paths| (&*paths.compared, &*paths.sent));
        let resolved = || (sent != written).then(|| sent.to_owned());
        let Some(mut target) = self.apply(compared, sent).or_else(resolved) else { return Ok(()) };
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

    /// The new path for one that was routed as `compared` and would go up as `sent`; `None` where it does.
    pub fn apply(&self, compared: &str, sent: &str) -> Option<String> {
        let rest = match self {
            Rewrite::Keep => return None,
            // What is below the prefix stays as it came, unless the prefix was written in another way.
            Rewrite::Strip(prefix) => {
                let below = |path: &'_ str| path.strip_prefix(prefix.as_str()).map(str::to_owned);
                below(sent).filter(|rest| is_whole(prefix, rest)).or_else(|| below(compared))?
            }
            Rewrite::Replace(pattern, replacement) => {
                pattern.replace(compared, replacement.as_str()).into_owned()
            }
        };
        // Not two slashes either: `//host/` is where a backend that redirects might send the client.
        Some(format!("/{}", rest.trim_start_matches('/')))
    }
}

/// Whether a prefix ends where a segment does.
fn is_whole(prefix: &str, rest: &str) -> bool {
    prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_off() {
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
    fn what_is_below_a_prefix_stays_as_it_came() {
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
    fn what_goes_up_unchanged_is_still_without_dots() {
        let mut request = RequestHeader::build("GET", b"/x/../a%40b?q=/../", None).unwrap();
        let paths = Paths { compared: "/a@b".to_owned(), sent: "/a%40b".to_owned() };
        Rewrite::Keep.on_request(&mut request, Some(&paths)).unwrap();
        assert_eq!(request.raw_path(), b"/a%40b?q=/../");
    }

    #[test]
    fn the_query_stays() {
        let mut request = RequestHeader::build("GET", b"/api/users?page=2", None).unwrap();
        Rewrite::Strip("/api".to_owned()).on_request(&mut request, None).unwrap();
        assert_eq!(request.raw_path(), b"/users?page=2");
        Rewrite::Keep.on_request(&mut request, None).unwrap();
        assert_eq!(request.raw_path(), b"/users?page=2");
    }

    #[test]
    fn a_match_is_replaced() {
        let replace = |pattern: &str, replacement: &str, path: &str| {
            Rewrite::Replace(Regex::new(pattern).unwrap(), replacement.to_owned()).apply(path, path).unwrap()
        };
        assert_eq!(replace("^/v[0-9]+/", "/", "/v2/users"), "/users");
        assert_eq!(replace("^/v([0-9]+)/(.*)$", "/$2/version/$1", "/v2/users"), "/users/version/2");
        assert_eq!(replace("^/old", "new", "/old/x"), "/new/x");
    }
}
