//! Configuration tables for responses: cross-origin access by browsers, and compression.

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::origin::AllowedOrigin;
use super::values::{MethodName, Secs};

/// `[cors]`, a policy: permissions for pages of other origins to use responses (fetch standard, 3.2). Absent: the
/// backend's own CORS fields are forwarded.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins whose pages are allowed: `"https://app.example.com"`, `"https://*.example.com"` (every host below
    /// `example.com`), or "*" (every origin).
    pub allow_origins: Vec<AllowedOrigin>,
    /// Allowed methods; "*": any method. GET, HEAD and POST need no permission, so they are always allowed.
    pub allow_methods: Vec<MethodName>,
    /// Request fields that pages may set; "*": any field except `Authorization`.
    pub allow_headers: Vec<FieldOrAny>,
    /// Response fields that pages may read, in addition to those that are always readable; "*": all fields.
    pub expose_headers: Vec<FieldOrAny>,
    /// True if pages may send and receive credentials, such as cookies; false: browsers leave them out.
    pub allow_credentials: bool,
    /// Time for which a browser may reuse the permissions without asking again.
    pub max_age_secs: Secs,
}

impl Default for Cors {
    fn default() -> Self {
        Cors {
            allow_origins: Vec::new(),
            allow_methods: vec![MethodName(Method::GET), MethodName(Method::POST)],
            allow_headers: vec![FieldOrAny::Field(http::header::CONTENT_TYPE)],
            expose_headers: Vec::new(),
            allow_credentials: false,
            max_age_secs: Secs::new(600),
        }
    }
}

/// Name of a header field, or "*" (every field).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum FieldOrAny {
    /// Every field: "*".
    Any,
    /// Field with this name.
    Field(HeaderName),
}

impl From<FieldOrAny> for String {
    fn from(field: FieldOrAny) -> String {
        match field {
            FieldOrAny::Any => "*".to_owned(),
            FieldOrAny::Field(name) => name.as_str().to_owned(),
        }
    }
}

impl TryFrom<String> for FieldOrAny {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match HeaderName::try_from(&text) {
            _ if text == "*" => Ok(FieldOrAny::Any),
            Ok(name) => Ok(FieldOrAny::Field(name)),
            Err(_) => Err(format!("'{text}' is not a valid name of a header field")),
        }
    }
}

/// `[compression]`, a policy: compression of responses for the client. Absent: the gateway compresses nothing.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// Content codings in order of preference. If the client has preferences, they come first.
    pub algorithms: Vec<Coding>,
    /// Compression level, which trades CPU time for size.
    pub level: CompressionLevel,
    /// Media types that are compressed: "text/html", "text/*" (all subtypes), "+json" (all types with this suffix).
    pub types: Vec<MediaTypes>,
    /// Minimum length of a body, in bytes. A body of unknown length is compressed regardless of its length.
    pub min_bytes: u64,
}

impl Default for Compression {
    fn default() -> Self {
        let types = [
            "text/*",
            "+json",
            "+xml",
            "application/json",
            "application/javascript",
            "application/xml",
            "application/x-ndjson",
            "application/wasm",
            "font/ttf",
            "font/otf",
            "image/bmp",
        ];
        Compression {
            algorithms: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            level: CompressionLevel::Balanced,
            types: types.map(|kind| MediaTypes(kind.to_owned())).into(),
            min_bytes: 1024,
        }
    }
}

/// Content coding of a compressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// Gzip (RFC 1952).
    Gzip,
}

/// Compression level, which trades CPU time for size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompressionLevel {
    /// Least CPU time.
    Fast,
    /// Medium CPU time; more time would make responses only a little smaller.
    Balanced,
    /// Several times the CPU time of `balanced`, for responses that are a few percent smaller.
    Small,
}

/// Media types: a single type, all subtypes of a type, or all types with the same suffix.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct MediaTypes(String);

impl MediaTypes {
    /// Returns true for a single media type, and false for a group of types.
    pub fn is_one(&self) -> bool {
        !self.0.ends_with('*') && !self.0.starts_with('+')
    }

    /// Returns true if `kind`, a media type without parameters, is one of these media types.
    pub fn contains(&self, kind: &str) -> bool {
        let ends = |text: &str, end: &str| {
            let at = text.len().checked_sub(end.len());
            at.and_then(|at| text.get(at..)).is_some_and(|found| found.eq_ignore_ascii_case(end))
        };
        let begins =
            |begin: &str| kind.get(..begin.len()).is_some_and(|found| found.eq_ignore_ascii_case(begin));
        match self.0.strip_suffix('*') {
            Some(begin) => begins(begin),
            None if self.0.starts_with('+') => ends(kind, &self.0),
            None => kind.eq_ignore_ascii_case(&self.0),
        }
    }
}

impl From<MediaTypes> for String {
    fn from(types: MediaTypes) -> String {
        types.0
    }
}

impl TryFrom<String> for MediaTypes {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        let is_right = match (text.strip_prefix('+'), text.split_once('/')) {
            (Some(end), _) => is_name(end),
            (None, Some((kind, "*"))) => is_name(kind),
            (None, Some((kind, name))) => is_name(kind) && is_name(name),
            (None, None) => false,
        };
        if is_right {
            return Ok(MediaTypes(text));
        }
        Err(format!(
            "'{text}' is not a valid media type; expected something like \"text/html\", \"text/*\" or \
             \"+json\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_match_type_group_or_suffix() {
        let types = |text: &str| MediaTypes::try_from(text.to_owned()).unwrap();
        assert!(types("text/*").contains("Text/Plain") && !types("text/*").contains("texts/plain"));
        assert!(types("+json").contains("application/problem+JSON") && !types("+json").contains("json"));
        assert!(types("text/html").contains("TEXT/HTML") && !types("text/html").contains("text/htmls"));
        for text in ["", "html", "*/*", "text/", "+", "text/html; charset=utf-8", "*"] {
            assert!(MediaTypes::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
