//! Configuration tables for requests: limits, header fields and fault injection.

use std::num::NonZeroU32;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{FieldName, FieldValue, Fields};
use super::values::{Percent, Secs};

/// `[limits]`, a policy: the maximum size of a request, and the minimum speed of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Maximum length of the request target as the client wrote it, in bytes; a longer one is answered with 414.
    pub max_uri_bytes: NonZeroU32,
    /// Maximum size of the request head (request line and header fields), in bytes; a larger one is answered with
    /// 431.
    pub max_header_bytes: NonZeroU32,
    /// Maximum number of header fields; more are answered with 431.
    pub max_header_fields: NonZeroU32,
    /// Maximum length of the request body, in bytes; a longer one is answered with 413. 0: no limit.
    pub max_request_body_bytes: u64,
    /// Maximum time that the gateway waits for more of the request body; then the client gets 408.
    pub body_timeout_secs: Secs,
    /// Minimum rate of the request body, in bytes per second: that many bytes allow one more second of waiting. 0:
    /// any number of bytes resets the waiting time.
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

/// `[headers]`, a policy: changes to header fields.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Request fields that are set; they replace existing fields.
    pub request_set: Fields,
    /// Request fields that are added.
    pub request_add: Fields,
    /// Request fields that are removed.
    pub request_remove: Vec<FieldName>,
    /// Response fields that are set; they replace existing fields.
    pub response_set: Fields,
    /// Response fields that are added.
    pub response_add: Fields,
    /// Response fields that are removed.
    pub response_remove: Vec<FieldName>,
    /// True if `X-Backend` tells the client which backend answered.
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

/// `[security_headers]`, a policy: response fields that make browsers stricter. A field that the backend sends itself
/// is kept, because the backend knows better. A field with an empty value is not sent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityHeaders {
    /// `X-Content-Type-Options`: "nosniff" makes browsers trust the declared type of scripts and styles.
    pub x_content_type_options: FieldValue,
    /// `X-Frame-Options`: the pages that may show this page in a frame.
    pub x_frame_options: FieldValue,
    /// `Referrer-Policy`: the part of the page's address that other sites may see.
    pub referrer_policy: FieldValue,
    /// `Content-Security-Policy`: the resources that the page may load.
    pub content_security_policy: FieldValue,
    /// `Strict-Transport-Security` (RFC 6797): the time for which browsers use HTTPS only. This field is only sent
    /// over HTTPS.
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

/// `fault`: faults that a route injects on purpose, to test how clients handle them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FaultInjection {
    /// Delay of a request, in milliseconds.
    pub delay_ms: u32,
    /// Share of requests that are delayed.
    pub delay_percent: Percent,
    /// Status code of the local reply in place of the backend's response.
    pub abort_status: u16,
    /// Share of requests that get the local reply.
    pub abort_percent: Percent,
}
