//! How a call ends: `grpc-status`, a number, and which HTTP status says the same.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The field with the status.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The field with what a person is told about it.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The status of a call; those that the gateway itself gives have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u8);

impl Status {
    /// How many there are.
    pub const COUNT: usize = 17;
    /// The client did not want to wait any more.
    pub const CANCELLED: Status = Status(1);
    /// Something went wrong that has no status of its own.
    pub const UNKNOWN: Status = Status(2);
    /// The client waited as long as it wanted to.
    pub const DEADLINE_EXCEEDED: Status = Status(4);
    /// The client may not do this.
    pub const PERMISSION_DENIED: Status = Status(7);
    /// There is too much of something.
    pub const RESOURCE_EXHAUSTED: Status = Status(8);
    /// There is nobody here who could do this.
    pub const UNIMPLEMENTED: Status = Status(12);
    /// Somebody did not keep to the protocol.
    pub const INTERNAL: Status = Status(13);
    /// It may work later.
    pub const UNAVAILABLE: Status = Status(14);
    /// The client must say who it is.
    pub const UNAUTHENTICATED: Status = Status(16);

    /// The status in a head or in trailers; `None` where there is none. One that gRPC does not know is
    /// UNKNOWN, as it is for clients.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let value = fields.get(STATUS)?.to_str().ok().and_then(|text| text.parse().ok());
        Some(value.filter(|code| usize::from(*code) < Self::COUNT).map_or(Status::UNKNOWN, Status))
    }

    /// What the gateway's own reply with this HTTP status is for a client of gRPC: what the client would make of
    /// it itself ("HTTP to gRPC Status Code Mapping"), and of two statuses something better than UNKNOWN.
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

    /// The HTTP status that says the same (as in `google/rpc/code.proto`), for logs and metrics.
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

    /// Whether it says that the backend fails: UNKNOWN (what a handler that panics ends with), INTERNAL, UNAVAILABLE or
    /// DATA_LOSS. Not DEADLINE_EXCEEDED and UNIMPLEMENTED, which a client can bring about with any backend.
    pub fn is_failure(self) -> bool {
        matches!(self.0, 2 | 13 | 14 | 15)
    }

    /// Its number.
    pub fn code(self) -> u8 {
        self.0
    }

    /// Its number, as the value of a field.
    pub fn value(self) -> HeaderValue {
        HeaderValue::from(u16::from(self.0))
    }
}

/// `text` as the value of `grpc-message`: whatever is not printable ASCII is percent-encoded.
pub fn message(text: &str) -> HeaderValue {
    const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
    let encoded = utf8_percent_encode(text, ENCODED).to_string();
    // Nothing is left in it that a field may not hold.
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number_that_is_known() {
        for (text, status) in [("0", 0), ("14", 14), ("16", 16), ("17", 2), ("999", 2), ("ok", 2), ("", 2)] {
            let fields = HeaderMap::from_iter([(STATUS, HeaderValue::from_static(text))]);
            assert_eq!(Status::of(&fields), Some(Status(status)), "{text}");
        }
        assert_eq!(Status::of(&HeaderMap::new()), None);
    }

    #[test]
    fn replies_are_what_clients_would_make_of_them() {
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
    fn a_failure_of_the_backend_is_a_server_error_too() {
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
