//! Query parameters of requests. Most requests allow none. An unknown parameter is an error, because a client that
//! writes `?dryrun=true` by mistake must not cause a change.

use axum::extract::{MatchedPath, Query, Request};
use axum::http::{Method, StatusCode, Uri};
use serde::Deserialize;

use super::problem::Problem;
use crate::config::did_you_mean;

/// Every query parameter: method, path, name.
pub(super) const PARAMETERS: [(&str, &str, &str); 4] = [
    ("PUT", "/api/v1/config", "dry_run"),
    ("DELETE", "/api/v1/backends/{id}", "force"),
    ("PUT", "/api/v1/backends/{id}", "force"),
    ("POST", "/api/v1/backends/{id}/drain", "force"),
];

/// Paths that accept any query. Browsers and bookmarks may extend the query of the page, and a health check must not
/// fail because a prober extends the query.
const ANY: [&str; 2] = ["/", "/api/v1/health"];

/// Options of a write.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    /// True for a dry run of the whole configuration: the response says what would change, and nothing changes.
    pub(super) dry_run: bool,
    /// True if the write happens even if it leaves a tag in use without a usable backend.
    pub(super) force: bool,
}

impl Options {
    /// Reads the options from a query whose parameters are known.
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        let Query(options) = Query::try_from_uri(uri).map_err(|error| wrong(uri, &error.to_string()))?;
        Ok(options)
    }
}

/// Refuses a query with a parameter that is unknown for the request's method and path.
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

/// Returns the reason why the parameter `name` is not allowed in this request; `None` if it is allowed.
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
    fn parameter_is_known_only_for_its_method_and_path() {
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
