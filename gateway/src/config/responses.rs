//! The tables of the configuration that say what browsers may do with responses, and which are compressed.

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::origin::AllowedOrigin;
use super::routes::MethodName;
use super::values::Secs;

/// `[cors]`, a policy: which pages of other origins may use a response (the fetch standard, 3.2). Absent: what
/// backends say is passed on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Whose pages: `"https://app.example.com"`, `"https://*.example.com"` for every host below one, or "*" for
    /// everybody's.
    pub allow_origins: Vec<AllowedOrigin>,
    /// With which methods, besides GET, HEAD and POST, which need no leave; "*": any.
    pub allow_methods: Vec<MethodName>,
    /// With which request fields; "*": any but `Authorization`.
    pub allow_headers: Vec<FieldOrAny>,
    /// Which response fields they may read, besides those that are always readable; "*": all.
    pub expose_headers: Vec<FieldOrAny>,
    /// Whether they may send and get cookies and the like.
    pub allow_credentials: bool,
    /// How long a browser remembers what it may do.
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

/// The name of a header field, or "*" for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum FieldOrAny {
    /// All of them.
    Any,
    /// This one.
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
            Err(_) => Err(format!("'{text}' is no name of a header field")),
        }
    }
}

/// `[compression]`, a policy: which responses are compressed on their way down. Absent: none.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// In which way, the best first; the client's wishes come before that.
    pub algorithms: Vec<Coding>,
    /// How much work that may be.
    pub level: CompressionLevel,
    /// Which media types: "text/html", "text/*" for all of a kind, "+json" for all that end so.
    pub types: Vec<MediaTypes>,
    /// How long a body must be, where that is known.
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

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

/// How much work that may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompressionLevel {
    /// Little.
    Fast,
    /// What is gained by more is hardly worth it.
    Balanced,
    /// Several times as much, for a few percent.
    Small,
}

/// Media types: one, all of a kind, or all that end in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct MediaTypes(String);

impl MediaTypes {
    /// Whether it is one type, and not all of a kind.
    pub fn is_one(&self) -> bool {
        !self.0.ends_with('*') && !self.0.starts_with('+')
    }

    /// Whether `kind` is one of them: a media type without parameters.
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
            "'{text}' is no media type; expected something like \"text/html\", \"text/*\" or \"+json\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_one_or_a_kind_or_an_ending() {
        let types = |text: &str| MediaTypes::try_from(text.to_owned()).unwrap();
        assert!(types("text/*").contains("Text/Plain") && !types("text/*").contains("texts/plain"));
        assert!(types("+json").contains("application/problem+JSON") && !types("+json").contains("json"));
        assert!(types("text/html").contains("TEXT/HTML") && !types("text/html").contains("text/htmls"));
        for text in ["", "html", "*/*", "text/", "+", "text/html; charset=utf-8", "*"] {
            assert!(MediaTypes::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
