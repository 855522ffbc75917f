//! Status of a gRPC call (`grpc-status`, a number), and the HTTP status that has the same meaning.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// Field with the status of a call.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Field with a message for people about the status.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Status of a gRPC call. There is a constant for each status that the gateway itself uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u8);

impl Status {
    /// Number of statuses that gRPC defines.
    pub const COUNT: usize = 17;
    /// The client has cancelled the call.
    pub const CANCELLED: Status = Status(1);
    /// No other status fits the error.
    pub const UNKNOWN: Status = Status(2);
    /// The deadline of the client has passed.
    pub const DEADLINE_EXCEEDED: Status = Status(4);
    /// The client may not make this call.
    pub const PERMISSION_DENIED: Status = Status(7);
    /// A limit has been exceeded.
    pub const RESOURCE_EXHAUSTED: Status = Status(8);
    /// The server does not have the method that the client calls.
    pub const UNIMPLEMENTED: Status = Status(12);
    /// The client or the server has broken the protocol.
    pub const INTERNAL: Status = Status(13);
    /// The call may succeed later.
    pub const UNAVAILABLE: Status = Status(14);
    /// The client must authenticate itself.
    pub const UNAUTHENTICATED: Status = Status(16);

    /// Returns the status in a head or in trailers; `None` if there is none. A status that gRPC does not define
    /// becomes UNKNOWN, as it does for clients.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let value = fields.get(STATUS)?.to_str().ok().and_then(|text| text.parse().ok());
        Some(value.filter(|code| usize::from(*code) < Self::COUNT).map_or(Status::UNKNOWN, Status))
    }

    /// Returns the gRPC status of a local reply with this HTTP status. The mapping is that of clients ("HTTP to gRPC
    /// Status Code Mapping"), except that 413 and 415 are not UNKNOWN.
    pub fn of_http(status: StatusCode) -> Self {
        match status {
            StatusCode::BAD_REQUEST => Status::INTERNAL,
            StatusCode::UNAUTHORIZED => Status::UNAUTHENTICATED,
            StatusCode::FORBIDDEN => Status::PERMISSION_DENIED,
            StatusCode::NOT_FOUND | StatusCode::UNSUPPORTED_MEDIA_TYPE => Status::UNIMPLEMENTED,
            StatusCode::PAYLOAD_TOO_LARGE => Status::RESOURCE_EXHAUSTED,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Status::UNAVAILABLE,
            _ => Status::UNKNOWN,
        }
    }

    /// Returns the HTTP status with the same meaning (as in `google/rpc/code.proto`), for logs and metrics.
    pub fn http(self) -> u16 {
        match self.0 {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        }
    }

    /// Returns true if the status shows that the backend fails: UNKNOWN (the status of a handler that panics),
    /// INTERNAL, UNAVAILABLE or DATA_LOSS. DEADLINE_EXCEEDED and UNIMPLEMENTED do not show that, because a client can
    /// cause them with any backend.
    pub fn is_failure(self) -> bool {
        matches!(self.0, 2 | 13 | 14 | 15)
    }

    /// Returns the number of the status.
    pub fn code(self) -> u8 {
        self.0
    }

    /// Returns the number of the status as a field value.
    pub fn value(self) -> HeaderValue {
        HeaderValue::from(u16::from(self.0))
    }
}

/// Returns `text` as the value of `grpc-message`. Characters that are not printable ASCII are percent-encoded.
pub fn message(text: &str) -> HeaderValue {
    const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
    let encoded = utf8_percent_encode(text, ENCODED).to_string();
    // After the encoding, each character is allowed in a field value.
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_or_malformed_status_is_unknown() {
        for (text, status) in [("0", 0), ("14", 14), ("16", 16), ("17", 2), ("999", 2), ("ok", 2), ("", 2)] {
            let fields = HeaderMap::from_iter([(STATUS, HeaderValue::from_static(text))]);
            assert_eq!(Status::of(&fields), Some(Status(status)), "{text}");
        }
        assert_eq!(Status::of(&HeaderMap::new()), None);
    }

    #[test]
    fn http_statuses_map_to_the_statuses_that_clients_derive() {
        for (http, grpc) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (413, 8),
            (415, 12),
            (429, 14),
            (500, 2),
            (502, 14),
            (503, 14),
            (504, 14),
            (308, 2),
        ] {
            assert_eq!(Status::of_http(StatusCode::from_u16(http).unwrap()).code(), grpc, "{http}");
        }
    }

    #[test]
    fn backend_failures_map_to_http_server_errors() {
        for code in 0..Status::COUNT {
            let status = Status(u8::try_from(code).unwrap());
            assert!(!status.is_failure() || status.http() >= 500, "{status:?}");
        }
        assert!(!Status::DEADLINE_EXCEEDED.is_failure() && !Status::UNIMPLEMENTED.is_failure());
    }

    #[test]
    fn a_message_is_printable_ascii() {
        assert_eq!(message("100 % of Zürich\n"), "100 %25 of Z%C3%BCrich%0A");
    }
}
