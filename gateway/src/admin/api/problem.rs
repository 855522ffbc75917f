//! Error responses of the management API, as `application/problem+json` (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use schemars::JsonSchema;
use serde::Serialize;

use super::edit::Edited;
use crate::config::{ConfigError, Fault, did_you_mean};
use crate::live::{ChangeError, KeepError};

/// `WWW-Authenticate` value for a client without the right token (RFC 6750 3).
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"gateway\"");

/// An error response.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    detail: String,
    errors: Vec<BodyError>,
}

/// A fault in the request's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct BodyError {
    /// Place in the body, as a JSON pointer (RFC 6901). An empty pointer means the whole body, or another part
    /// of the resulting configuration.
    pub(super) pointer: String,
    /// Description of the fault.
    pub(super) detail: String,
}

/// Body of an error response (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct ProblemBody<'a> {
    /// URN of the problem's kind.
    #[serde(rename = "type")]
    kind: &'a str,
    /// Short title of the problem's kind, for people.
    title: &'a str,
    /// Status code of the response.
    status: u16,
    /// Description of what happened to this request.
    detail: &'a str,
    /// Faults in the request's body, if the body is the problem.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schemars(default)]
    errors: &'a [BodyError],
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem { status, detail: detail.into(), errors: Vec::new() }
    }

    pub(super) fn not_found(kind: &str, name: &str) -> Self {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no {kind} '{name}'"))
    }

    /// Returns a 404 problem: no element is called `name`. The problem may suggest one of the `known` names.
    pub(super) fn not_found_among<'k>(kind: &str, name: &str, known: impl Iterator<Item = &'k str>) -> Self {
        let meant = did_you_mean(name, known);
        Problem::new(StatusCode::NOT_FOUND, format!("there is no {kind} '{name}'{meant}"))
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::CONFLICT, detail)
    }

    /// Returns a 422 problem: the body is valid JSON, but has a fault at `pointer`.
    pub(super) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem::invalid_in(vec![BodyError { pointer: pointer.into(), detail: detail.into() }])
    }

    fn invalid_in(errors: Vec<BodyError>) -> Self {
        let count = errors.len();
        let things = if count == 1 { "one thing is".to_owned() } else { format!("{count} things are") };
        let detail = format!("{things} wrong, and nothing has changed");
        Problem { errors, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// Returns a 422 problem for an invalid configuration. `at` is the JSON pointer to the request's body in the
    /// configuration.
    pub(super) fn invalid_config(error: &ConfigError, at: &str) -> Self {
        Problem::invalid_in(error.faults.iter().map(|fault| in_body(fault, at)).collect())
    }

    /// Returns a 422 problem for an invalid text that was not in the request, such as a file. Each fault includes its
    /// place in that text.
    pub(super) fn invalid_file(error: &ConfigError) -> Self {
        let told = |fault: &Fault| BodyError { pointer: fault.pointer.clone(), detail: fault.to_string() };
        Problem::invalid_in(error.faults.iter().map(told).collect())
    }

    /// Returns the problem for a change that did not happen. `edited` is the result of the edit.
    pub(super) fn of_change(error: ChangeError<Problem>, edited: &Edited) -> Self {
        match error {
            ChangeError::Refused(problem) => problem,
            ChangeError::Invalid(error) => {
                let problem = Problem::invalid_config(&error, &edited.at);
                match &edited.not_found {
                    // The mistake may be the name in the path, and not the body.
                    Some(why) => {
                        let detail = format!("{why}, so this would add it: {}", problem.detail);
                        Problem { detail, ..problem }
                    }
                    None => problem,
                }
            }
            error => Problem::of_other(&error),
        }
    }

    /// Returns the problem for a change that failed for a reason other than its content. The change is out of date,
    /// or the file is invalid or cannot be written.
    pub(super) fn of_other<R: std::fmt::Display>(error: &ChangeError<R>) -> Self {
        let status = match error {
            ChangeError::OutOfDate(_) => StatusCode::PRECONDITION_FAILED,
            ChangeError::FileIsWrong(_) | ChangeError::Refused(_) => StatusCode::CONFLICT,
            ChangeError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ChangeError::NotKept { error: KeepError::Edited, .. } => StatusCode::CONFLICT,
            ChangeError::NotKept { error: KeepError::System(_), .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error.to_string())
    }
}

/// Displays only the detail, because the `Display` of `ChangeError` includes it.
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Returns the fault with its place in the body. If its place is elsewhere in the configuration, the detail names the
/// place.
fn in_body(fault: &Fault, at: &str) -> BodyError {
    let rest = fault.pointer.strip_prefix(at).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    match rest {
        Some(rest) => BodyError { pointer: rest.to_owned(), detail: fault.detail.clone() },
        None => {
            let detail = format!("{} (at {} of the configuration)", fault.detail, fault.pointer);
            BodyError { pointer: String::new(), detail }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let title = status.canonical_reason().unwrap_or("Problem");
        let kind = format!("urn:problem-type:gateway:api:{}", title.to_ascii_lowercase().replace(' ', "_"));
        let body = ProblemBody {
            kind: &kind,
            title,
            status: status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        // Strings and numbers can always be written as JSON.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response
    }
}
