//! What a request's query may say. Most requests have none, and one that is not known is an error: whoever writes
//! `?dryrun=true` must not find the change made.

use axum::extract::{MatchedPath, Query, Request};
use axum::http::{Method, StatusCode, Uri};
use serde::Deserialize;

use super::problem::Problem;
use crate::config::did_you_mean;

/// Every query parameter that there is: of which method and path, and its name.
pub(super) const PARAMETERS: [(&str, &str, &str); 4] = [
    ("PUT", "/api/v1/config", "dry_run"),
    ("DELETE", "/api/v1/backends/{id}", "force"),
    ("PUT", "/api/v1/backends/{id}", "force"),
    ("POST", "/api/v1/backends/{id}/drain", "force"),
];

/// Paths that take any query: the page, which browsers and bookmarks add to, and what asks only whether the process
/// lives, which must not depend on what a prober adds.
const ANY: [&str; 2] = ["/", "/api/v1/health"];

/// What a query may ask of a write.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    /// Whether it is only said what would happen: for the whole configuration.
    pub(super) dry_run: bool,
    /// Whether it is done although requests are left without a backend: for the last one of a tag.
    pub(super) force: bool,
}

impl Options {
    /// Reads them from a query whose parameters are known.
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        let Query(options) = Query::try_from_uri(uri).map_err(|error| wrong(uri, &error.to_string()))?;
        Ok(options)
    }
}

/// Refuses a query with a parameter that means nothing to the request.
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if path.is_empty() || ANY.contains(&path) {
        return Ok(());
    }
    let uri = request.uri();
    let parameters = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let Query(parameters) = parameters.map_err(|error| wrong(uri, &error.to_string()))?;
    match parameters.iter().find_map(|(name, _)| unknown(request.method(), path, name)) {
        Some(why) => Err(wrong(uri, &why)),
        None => Ok(()),
    }
}

fn wrong(uri: &Uri, why: &str) -> Problem {
    let query = uri.query().unwrap_or_default();
    Problem::new(StatusCode::BAD_REQUEST, format!("the query '{query}' is not understood: {why}"))
}

/// Why the parameter `name` means nothing to this request, if it does not.
fn unknown(method: &Method, path: &str, name: &str) -> Option<String> {
    let here = || PARAMETERS.iter().filter(|known| (known.0, known.1) == (method.as_str(), path));
    if here().any(|known| known.2 == name) {
        return None;
    }
    let elsewhere: Vec<String> = PARAMETERS
        .iter()
        .filter(|known| known.2 == name)
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    if !elsewhere.is_empty() {
        return Some(format!("`{name}` is for {}", elsewhere.join(", ")));
    }
    let meant = did_you_mean(name, here().map(|known| known.2));
    let known: Vec<String> = here().map(|known| format!("`{}`", known.2)).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Some(format!("unknown parameter `{name}`{meant}; {method} {path} takes {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_known_only_where_it_means_something() {
        let unknown = |method: Method, path, name| unknown(&method, path, name);
        for (method, path, name) in PARAMETERS {
            assert_eq!(unknown(method.parse().unwrap(), path, name), None, "{method} {path}");
        }
        assert_eq!(
            unknown(Method::PUT, "/api/v1/config", "dryrun").unwrap(),
            "unknown parameter `dryrun` (did you mean `dry_run`?); PUT /api/v1/config takes `dry_run`"
        );
        assert_eq!(
            unknown(Method::GET, "/api/v1/domains", "limit").unwrap(),
            "unknown parameter `limit`; GET /api/v1/domains takes none"
        );
        assert_eq!(
            unknown(Method::GET, "/api/v1/config", "dry_run").unwrap(),
            "`dry_run` is for PUT /api/v1/config"
        );
    }
}
