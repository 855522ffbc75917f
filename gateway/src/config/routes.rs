//! `[[virtual_hosts.routes]]`: what holds for a part of a virtual host.

use http::Method;
use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::auth::{Access, Auth};
use super::fields::Fields;
use super::policies::{FaultInjection, Headers, Limits, SecurityHeaders};
use super::rate_limit::RateLimits;
use super::redirect::RedirectStatus;
use super::responses::{Compression, Cors};
use super::upstream::{Balancing, CircuitBreaker, HealthCheck, Retry, Upstream};
use super::values::is_default;

/// A part of a virtual host: its requests with such a path, method and header fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Exactly this path.
    #[serde(skip_serializing_if = "is_default")]
    pub path: Option<String>,
    /// This path and everything below it.
    #[serde(skip_serializing_if = "is_default")]
    pub path_prefix: Option<String>,
    /// Every path in which this is found.
    #[serde(skip_serializing_if = "is_default")]
    pub path_regex: Option<Pattern>,
    /// One of these methods; empty: all. GET stands for HEAD, too.
    #[serde(skip_serializing_if = "is_default")]
    pub methods: Vec<MethodName>,
    /// Every field named here has this value.
    #[serde(skip_serializing_if = "is_default")]
    pub header_match: Fields,
    /// The tag of the backends that serve it; empty: the virtual host's.
    #[serde(skip_serializing_if = "is_default")]
    pub enabled_backends_tag: String,
    /// Whether `path_prefix` is taken off the path on the way up.
    #[serde(skip_serializing_if = "is_default")]
    pub strip_prefix: bool,
    /// What the part of the path that `path_regex` matches becomes on the way up, a template; empty: it stays.
    #[serde(skip_serializing_if = "is_default")]
    pub rewrite: String,
    /// Where clients are sent in place of an answer, a template; empty: nowhere.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect: String,
    /// The status with which they are sent there.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect_status: RedirectStatus,
    /// The tag of backends that get a copy of each idempotent request, and whose answers are dropped; empty:
    /// none.
    #[serde(skip_serializing_if = "is_default")]
    pub mirror_tag: String,
    /// What it does wrong on purpose.
    #[serde(skip_serializing_if = "is_default")]
    pub fault: FaultInjection,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub health_check: Option<HealthCheck>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub balancing: Option<Balancing>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub upstream: Option<Upstream>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: Option<Retry>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub rate_limit: Option<RateLimits>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Option<Limits>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: Option<Headers>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub security_headers: Option<SecurityHeaders>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub access: Option<Access>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub auth: Option<Auth>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub cors: Option<Cors>,
    /// In place of the virtual host's table, or the one at the top.
    #[serde(skip_serializing_if = "is_default")]
    pub compression: Option<Compression>,
}

impl Route {
    /// Its name in metrics, logs and counters: the path as it was written (an exact one behind `=`, a pattern
    /// behind `~`, as nginx writes them), and the conditions.
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

/// The most memory that a compiled pattern may take: the library's limit is forty times that, for each.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// A regular expression.
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
        // What the library says is several lines with a drawing; the last one is the reason.
        let reason = |error: regex::Error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        };
        RegexBuilder::new(&text)
            .size_limit(MAX_PATTERN_BYTES)
            .build()
            .map(Pattern)
            .map_err(|error| format!("'{text}' is no regular expression: {}", reason(error)))
    }
}

/// The name of a method.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MethodName(pub Method);

impl Serialize for MethodName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl TryFrom<String> for MethodName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match Method::from_bytes(text.as_bytes()) {
            // Methods are case-sensitive (RFC 9110 9.1), and those that are used are in capitals.
            Ok(_) if text.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                Err(format!("'{text}' is no method (did you mean `{}`?)", text.to_ascii_uppercase()))
            }
            Ok(method) => Ok(MethodName(method)),
            Err(_) => Err(format!("'{text}' is no method; expected something like \"GET\"")),
        }
    }
}
