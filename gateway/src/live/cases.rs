//! Runs the `[[tests]]` of a configuration: explains the request of each test, and compares the explanation
//! with the expected values.

use super::explain::{Explanation, asked, explain};
use super::snapshot::Snapshot;
use crate::config::{Case, PathFault};

/// Runs the `[[tests]]` in the configuration of `snapshot`, with `snapshot` itself.
///
/// # Errors
/// Returns a fault for each test whose result differs from the expected one.
pub(super) fn try_on(snapshot: &Snapshot) -> Result<(), Vec<PathFault>> {
    let faults = snapshot.config.tests.iter().enumerate().filter_map(|(i, case)| {
        let detail = fault(case, snapshot)?;
        Some(PathFault { path: format!("tests/{i}"), detail })
    });
    let faults: Vec<_> = faults.collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn fault(case: &Case, snapshot: &Snapshot) -> Option<String> {
    let request = &case.request;
    let headers = case.headers.0.iter().map(|(name, value)| (name.0.clone(), value.0.clone()));
    let explanation = match asked(&request.method, &request.url, headers) {
        Ok(asked) => explain(snapshot, &asked),
        Err(error) => return Some(error),
    };
    let wrong = differences(case, &explanation);
    let asked = format!("{} {}", request.method, request.url);
    (!wrong.is_empty()).then(|| format!("the test of {asked} fails: {}", wrong.join("; ")))
}

fn differences(case: &Case, explanation: &Explanation) -> Vec<String> {
    let expect = &case.expect;
    let route = explanation.route.as_ref();
    let pools = route.into_iter().flat_map(|route| &route.pools);
    // A rollout's tag does not count: a test that expects this tag would fail after a rollback, and block it.
    let tags: Vec<&str> = pools.filter(|pool| !pool.by_rollout).map(|pool| &*pool.tag).collect();
    let tag = expect.tag.as_deref();
    // If several tags share the route's requests, any of them is a right answer.
    let tag_found = tag.filter(|tag| tags.contains(tag)).or(tags.first().copied());
    let status = |status: Option<u16>| status.map(|status| status.to_string());
    let (status_expected, status_found) = (status(expect.status), status(explanation.answered));
    let compared = [
        ("virtual_host", expect.virtual_host.as_deref(), explanation.virtual_host.as_deref()),
        ("route", expect.route.as_deref(), route.map(|route| route.name.as_str())),
        ("tag", tag, tag_found),
        ("path", expect.path.as_deref(), route.map(|route| route.upstream_path.as_str())),
        ("redirect", expect.redirect.as_deref(), route.and_then(|route| route.redirect.as_deref())),
        ("status", status_expected.as_deref(), status_found.as_deref()),
    ];
    let wrong = compared.into_iter().filter_map(|(what, expected, found)| {
        let expected = expected.filter(|expected| Some(*expected) != found)?;
        Some(format!(
            "{what} is {}, expected {expected:?}",
            found.map_or("none".to_owned(), |f| format!("{f:?}"))
        ))
    });
    wrong.collect()
}
