//! `[[virtual_hosts.routes]]`: settings for some of the requests of a virtual host.

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::fields::Fields;
use super::policies::FaultInjection;
use super::redirect::RedirectStatus;
use super::tables::{policy_tables, with_policy_tables};
use super::values::{MethodName, is_default};

policy_tables! { with_policy_tables "replaces the virtual host's or the top-level table"
/// Route: conditions on path, method and header fields, and settings for requests that match all conditions.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Path that the request must have; absent: no such condition.
    #[serde(skip_serializing_if = "is_default")]
    pub path: Option<String>,
    /// Path that the request's path must be, or must be below; absent: no such condition.
    #[serde(skip_serializing_if = "is_default")]
    pub path_prefix: Option<String>,
    /// Regular expression that must match a part of the request's path; absent: no such condition.
    #[serde(skip_serializing_if = "is_default")]
    pub path_regex: Option<Pattern>,
    /// Methods that the request may have; empty: every method. GET includes HEAD.
    #[serde(skip_serializing_if = "is_default")]
    pub methods: Vec<MethodName>,
    /// Header fields that the request must have, each with exactly this value; empty: no such condition.
    #[serde(skip_serializing_if = "is_default")]
    pub header_match: Fields,
    /// Tag of the backends to which matching requests are forwarded; empty: the tag of the virtual host.
    #[serde(skip_serializing_if = "is_default")]
    pub enabled_backends_tag: String,
    /// True if `path_prefix` is removed from the path for the backend; false: the backend gets the whole path.
    #[serde(skip_serializing_if = "is_default")]
    pub strip_prefix: bool,
    /// Template that replaces the match of `path_regex` in the path for the backend; empty: nothing is replaced.
    #[serde(skip_serializing_if = "is_default")]
    pub rewrite: String,
    /// Template of the URL or path to which clients are redirected; empty: no redirect.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect: String,
    /// Status code of the redirect; only used with `redirect`.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect_status: RedirectStatus,
    /// Tag of backends that get copies of idempotent requests; their responses are dropped. Empty: no copies.
    #[serde(skip_serializing_if = "is_default")]
    pub mirror_tag: String,
    /// Errors and delays that the route causes on purpose.
    #[serde(skip_serializing_if = "is_default")]
    pub fault: FaultInjection,
    ..policy_tables,
}
}

impl Route {
    /// Returns the route's name in metrics, logs and counters: its path, its methods and its header fields. As in
    /// nginx, `=` precedes an exact path and `~` precedes a pattern.
    pub fn name(&self) -> String {
        let mut name = match (&self.path, &self.path_regex, &self.path_prefix) {
            (Some(path), _, _) => format!("= {path}"),
            (None, Some(pattern), _) => format!("~ {}", pattern.0.as_str()),
            (None, None, prefix) => prefix.clone().unwrap_or_else(|| "/".to_owned()),
        };
        let methods: Vec<&str> = self.methods.iter().map(|method| method.0.as_str()).collect();
        if !methods.is_empty() {
            name.push(' ');
            name.push_str(&methods.join(","));
        }
        for (field, value) in &self.header_match.0 {
            name.push_str(&format!(" {}={}", field.0, String::from_utf8_lossy(value.0.as_bytes())));
        }
        name
    }
}

/// Maximum memory of a compiled pattern, in bytes. The default limit of the `regex` crate is forty times this.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Regular expression for paths, compiled while the configuration is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(pub Regex);

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        // The `regex` crate reports an error in several lines; only the last line is the reason.
        let reason = |error: regex::Error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        };
        RegexBuilder::new(&text)
            .size_limit(MAX_PATTERN_BYTES)
            .build()
            .map(Pattern)
            .map_err(|error| format!("'{text}' is not a valid regular expression: {}", reason(error)))
    }
}
