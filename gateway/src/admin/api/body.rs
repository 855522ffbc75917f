//! Extractors for parts of a request: the caller, the condition of a write, and a JSON body.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::problem::Problem;
use super::query::Options;
use crate::util::field_list;

/// Maximum time for receiving a body.
const BODY: Duration = Duration::from_secs(15);

/// Caller of a write, and the condition and options of this write.
pub(super) struct Caller {
    /// Address of the client.
    pub(super) who: String,
    /// Method and path of the request.
    pub(super) what: String,
    /// Entity tags of `If-Match`: the write happens only if one of them is current. `None` accepts any revision.
    pub(super) if_match: Option<Vec<String>>,
    /// Options from the query.
    pub(super) options: Options,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let peer = ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await;
        Ok(Caller {
            who: peer.map_or_else(
                |_| "unknown".to_owned(),
                |ConnectInfo(peer)| peer.ip().to_canonical().to_string(),
            ),
            what: format!("{} {}", parts.method, parts.uri.path()),
            if_match: if_match(&parts.headers),
            options: Options::read(&parts.uri)?,
        })
    }
}

/// Returns the strong entity tags of `If-Match` (RFC 9110 13.1.1); `None` if the field is absent or `*`. Weak tags
/// never match, so they are left out.
fn if_match(headers: &HeaderMap) -> Option<Vec<String>> {
    headers.get(header::IF_MATCH)?;
    let tags = field_list::members(headers, header::IF_MATCH);
    let tags: Vec<&str> = tags.map(|tag| std::str::from_utf8(tag).unwrap_or_default()).collect();
    if tags == ["*"] {
        return None;
    }
    let strong = |tag: &&str| tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).map(str::to_owned);
    Some(tags.iter().filter_map(strong).collect())
}

/// A JSON body.
pub(super) struct Json(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if !is_json(&content_type) {
            let detail = format!("expected Content-Type: application/json, found '{content_type}'");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let bytes = timeout(BODY, Bytes::from_request(request, state)).await.map_err(|_too_long| {
            Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body has not arrived within {BODY:?}"))
        })?;
        let bytes = bytes.map_err(|rejection| {
            let status = rejection.status();
            let detail = match status {
                StatusCode::PAYLOAD_TOO_LARGE => "the body is longer than 1 MiB".to_owned(),
                _ => format!("cannot read the body: {}", rejection.body_text()),
            };
            Problem::new(status, detail)
        })?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}"))
        })?;
        Ok(Json(value))
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

impl Json {
    /// Returns the body, which must be an object.
    pub(super) fn object(self) -> Result<Map<String, Value>, Problem> {
        match self.0 {
            Value::Object(object) => Ok(object),
            other => Err(Problem::invalid("", format!("expected an object, found {}", kind(&other)))),
        }
    }

    /// Returns the body, parsed as a `T`.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        serde_path_to_error::deserialize(self.0).map_err(|error| {
            let pointer: String = error.path().iter().map(|segment| format!("/{segment}")).collect();
            Problem::invalid(pointer.replace("/?", ""), error.inner().to_string())
        })
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn if_match_keeps_strong_tags_only() {
        let condition = |lines: &[&str]| {
            let field = |line: &&str| (header::IF_MATCH, HeaderValue::from_str(line).unwrap());
            if_match(&lines.iter().map(field).collect())
        };
        assert_eq!(condition(&[]), None);
        assert_eq!(condition(&["*"]), None);
        assert_eq!(condition(&[", *,"]), None, "an empty member is none");
        assert_eq!(condition(&["\"a-1\""]), Some(vec!["a-1".to_owned()]));
        assert_eq!(condition(&["\"a\", \"b\"", "\"c\""]).unwrap(), ["a", "b", "c"]);
        assert_eq!(condition(&["W/\"a\""]), Some(vec![]), "a weak tag matches nothing");
        assert_eq!(condition(&["a"]), Some(vec![]));
    }

    #[test]
    fn only_application_json_is_json() {
        for json in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["", "text/plain", "application/toml", "application/jsonx"] {
            assert!(!is_json(other), "{other}");
        }
    }
}
