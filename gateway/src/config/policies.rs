//! The tables of the configuration that say what happens to requests.

use std::num::NonZeroU32;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{FieldName, FieldValue, Fields};
use super::values::{Percent, Secs};

/// `[limits]`, a policy: how large a request may be, and how slowly its body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Its target, as the client writes it; a longer one is answered with 414.
    pub max_uri_bytes: NonZeroU32,
    /// Its head: the request line and the header fields; a larger one is answered with 431.
    pub max_header_bytes: NonZeroU32,
    /// Header fields; more are answered with 431.
    pub max_header_fields: NonZeroU32,
    /// Its body; a longer one is answered with 413. 0: any length.
    pub max_request_body_bytes: u64,
    /// How long its body is waited for, as long as nothing of it comes; then 408.
    pub body_timeout_secs: Secs,
    /// So many bytes of it buy another second; 0: any do.
    pub min_body_bytes_per_sec: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_uri_bytes: NonZeroU32::MIN.saturating_add(8 * 1024 - 1),
            max_header_bytes: NonZeroU32::MIN.saturating_add(32 * 1024 - 1),
            max_header_fields: NonZeroU32::MIN.saturating_add(99),
            max_request_body_bytes: 10 * 1024 * 1024,
            body_timeout_secs: Secs::new(30),
            min_body_bytes_per_sec: 256,
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
