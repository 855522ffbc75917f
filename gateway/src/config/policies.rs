//! The tables of the configuration that say what happens to requests.

use std::num::NonZeroU32;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{FieldName, FieldValue, Fields};
use super::values::{Percent, Secs};

/// `[rate_limit]`, a policy: how much a client may ask.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Requests that a client may make in a window.
    pub requests: NonZeroU32,
    /// How long a window is; it opens with the client's first request.
    pub window_secs: Secs,
    /// What makes a client.
    pub key: RateLimitKey,
    /// What is counted together.
    pub scope: RateLimitScope,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit {
            requests: NonZeroU32::MIN.saturating_add(99),
            window_secs: Secs::new(60),
            key: RateLimitKey::ClientIp,
            scope: RateLimitScope::Route,
        }
    }
}

/// What makes a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitKey {
    /// Its address; of IPv6 the first 64 bits, which is what one customer is given.
    ClientIp,
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitScope {
    /// Each route counts for itself.
    Route,
    /// One counter for all that the table holds for.
    Global,
}

/// `[limits]`, a policy: how large a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Its target, as the client writes it; a longer one is answered with 414.
    pub max_uri_bytes: NonZeroU32,
    /// Its head: the request line and the header fields; a larger one is answered with 431.
    pub max_header_bytes: NonZeroU32,
    /// Header fields; more are answered with 431.
    pub max_header_fields: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_uri_bytes: NonZeroU32::MIN.saturating_add(8 * 1024 - 1),
            max_header_bytes: NonZeroU32::MIN.saturating_add(32 * 1024 - 1),
            max_header_fields: NonZeroU32::MIN.saturating_add(99),
        }
    }
}

/// `[headers]`, a policy: which header fields are changed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Set on the way up, whatever was there.
    pub request_set: Fields,
    /// Added on the way up.
    pub request_add: Fields,
    /// Removed on the way up.
    pub request_remove: Vec<FieldName>,
    /// Set on the way down, whatever was there.
    pub response_set: Fields,
    /// Added on the way down.
    pub response_add: Fields,
    /// Removed on the way down.
    pub response_remove: Vec<FieldName>,
    /// Whether `X-Backend` tells the client which backend answered.
    pub expose_backend: bool,
}

impl Default for Headers {
    fn default() -> Self {
        let name = |name| FieldName(HeaderName::from_static(name));
        let gateway = FieldValue(HeaderValue::from_static("gateway"));
        Headers {
            request_set: Fields(vec![(name("x-proxy"), gateway)]),
            request_add: Fields::default(),
            request_remove: Vec::new(),
            response_set: Fields::default(),
            response_add: Fields::default(),
            response_remove: vec![name("server"), name("x-powered-by")],
            expose_backend: false,
        }
    }
}

/// `[security_headers]`, a policy: which fields tell browsers to be careful. A backend that sends one of them
/// itself knows better, and an empty one is left out.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityHeaders {
    /// `X-Content-Type-Options`: "nosniff" has scripts and styles be what they are called.
    pub x_content_type_options: FieldValue,
    /// `X-Frame-Options`: who may show the page in a frame.
    pub x_frame_options: FieldValue,
    /// `Referrer-Policy`: how much of the address other sites are told.
    pub referrer_policy: FieldValue,
    /// `Content-Security-Policy`: what the page may load.
    pub content_security_policy: FieldValue,
    /// `Strict-Transport-Security` (RFC 6797): for how long browsers come by HTTPS only. Sent over HTTPS only.
    pub strict_transport_security: FieldValue,
}

impl Default for SecurityHeaders {
    fn default() -> Self {
        let value = |value| FieldValue(HeaderValue::from_static(value));
        SecurityHeaders {
            x_content_type_options: value("nosniff"),
            x_frame_options: value("DENY"),
            referrer_policy: value("strict-origin-when-cross-origin"),
            content_security_policy: value(""),
            strict_transport_security: value(""),
        }
    }
}

/// `fault`: what a route does wrong on purpose, to see how clients bear it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FaultInjection {
    /// How long a request is held up.
    pub delay_ms: u32,
    /// The share of requests that are.
    pub delay_percent: Percent,
    /// The status of an answer in place of the backend's.
    pub abort_status: u16,
    /// The share of requests that get it.
    pub abort_percent: Percent,
}
