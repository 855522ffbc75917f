//! Configuration tables for requests: limits, header fields and fault injection.

use std::num::NonZeroU32;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{FieldName, FieldValue, Fields};
use super::values::{Percent, Secs};

/// `[limits]`, a policy: the maximum size of a request, and the minimum rate at which its body must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Maximum length of the request target as the client wrote it, in bytes; for a longer one, the client gets 414.
    pub max_uri_bytes: NonZeroU32,
    /// Maximum size of the request head (request line and header fields), in bytes. If the head is larger, the client
    /// gets 431.
    pub max_header_bytes: NonZeroU32,
    /// Maximum number of header fields in a request; for more, the client gets 431.
    pub max_header_fields: NonZeroU32,
    /// Maximum length of the request body, in bytes; for a longer one, the client gets 413. 0: no limit.
    pub max_request_body_bytes: u64,
    /// Maximum time that the gateway waits for more of the request body. After this time, the client gets 408.
    pub body_timeout_secs: Secs,
    /// Minimum rate of the request body, in bytes per second. Sending this number of bytes gives the client one more
    /// second. 0: any byte restarts `body_timeout_secs`.
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

/// `[headers]`, a policy: changes to the header fields of requests and responses.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Request fields that are set to a value; existing fields of the same name are replaced.
    pub request_set: Fields,
    /// Request fields that are added; existing fields of the same name are kept.
    pub request_add: Fields,
    /// Names of request fields that are removed.
    pub request_remove: Vec<FieldName>,
    /// Response fields that are set to a value; existing fields of the same name are replaced.
    pub response_set: Fields,
    /// Response fields that are added; existing fields of the same name are kept.
    pub response_add: Fields,
    /// Names of response fields that are removed.
    pub response_remove: Vec<FieldName>,
    /// True if the response field `X-Backend` names the backend that answered; false: clients do not learn it.
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

/// `[security_headers]`, a policy: response fields that make browsers stricter. If the backend sends a field, the
/// backend's value is kept, because the backend knows its pages. A field with an empty value is not added.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityHeaders {
    /// `X-Content-Type-Options`: "nosniff" makes browsers believe the media type that a script or style declares.
    pub x_content_type_options: FieldValue,
    /// `X-Frame-Options`: the sites whose pages may show this page in a frame.
    pub x_frame_options: FieldValue,
    /// `Referrer-Policy`: the part of the page's URL that browsers tell other sites.
    pub referrer_policy: FieldValue,
    /// `Content-Security-Policy`: the resources that the page may load.
    pub content_security_policy: FieldValue,
    /// `Strict-Transport-Security` (RFC 6797): the time for which browsers use only HTTPS for the host. The field is
    /// only sent over HTTPS.
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

/// `fault`: errors and delays that a route causes on purpose, so that operators can test how clients handle them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FaultInjection {
    /// Time for which a delayed request waits, in milliseconds.
    pub delay_ms: u32,
    /// Share of the route's requests that are delayed.
    pub delay_percent: Percent,
    /// Status code of the local reply that some requests get in place of the backend's response; 0: none.
    pub abort_status: u16,
    /// Share of the route's requests that get the local reply.
    pub abort_percent: Percent,
}
