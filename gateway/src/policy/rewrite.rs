//! The path that a backend gets to see, where a route changes it.

use http::Uri;
use http::uri::PathAndQuery;
use pingora::http::RequestHeader;
use pingora::prelude::*;
use regex::Regex;

use crate::config;

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
    /// Changes the path of a request that was routed by `path`; its query stays.
    ///
    /// # Errors
    /// Where what comes out is no path, which the configuration has excluded.
    pub fn on_request(&self, request: &mut RequestHeader, path: &str) -> Result<()> {
        let Some(mut target) = self.apply(path) else { return Ok(()) };
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

    /// The new path for `path`, which is in the form in which it was routed; `None` where it stays as it came.
    pub fn apply(&self, path: &str) -> Option<String> {
        let rest = match self {
            Rewrite::Keep => return None,
            Rewrite::Strip(prefix) => path.strip_prefix(prefix.as_str())?.to_owned(),
            Rewrite::Replace(pattern, replacement) => {
                pattern.replace(path, replacement.as_str()).into_owned()
            }
        };
        // Not two slashes either: `//host/` is where a backend that redirects might send the client.
        Some(format!("/{}", rest.trim_start_matches('/')))
    }
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
            assert_eq!(Rewrite::Strip(prefix.to_owned()).apply(path).as_deref(), Some(rest), "{path}");
        }
        assert_eq!(Rewrite::Keep.apply("/api"), None);
    }

    #[test]
    fn the_query_stays() {
        let mut request = RequestHeader::build("GET", b"/api/users?page=2", None).unwrap();
        Rewrite::Strip("/api".to_owned()).on_request(&mut request, "/api/users").unwrap();
        assert_eq!(request.raw_path(), b"/users?page=2");
        Rewrite::Keep.on_request(&mut request, "/users").unwrap();
        assert_eq!(request.raw_path(), b"/users?page=2");
    }

    #[test]
    fn a_match_is_replaced() {
        let replace = |pattern: &str, replacement: &str, path: &str| {
            Rewrite::Replace(Regex::new(pattern).unwrap(), replacement.to_owned()).apply(path).unwrap()
        };
        assert_eq!(replace("^/v[0-9]+/", "/", "/v2/users"), "/users");
        assert_eq!(replace("^/v([0-9]+)/(.*)$", "/$2/version/$1", "/v2/users"), "/users/version/2");
        assert_eq!(replace("^/old", "new", "/old/x"), "/new/x");
    }
}
