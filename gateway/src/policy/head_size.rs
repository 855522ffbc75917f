//! `[limits]`: maximum size of a request head. A request with an overlong target or too many fields gets a
//! local reply (RFC 9110 15.5.15, RFC 6585 5) before the gateway processes it further.

use http::header;
use pingora::http::RequestHeader;

use super::Verdict;
use crate::config::Limits;
use crate::reply::{Problem, Reply};

/// Detail of the local reply to a target that is too long.
pub const URI_TOO_LONG: &str = "the target is longer than limits.max_uri_bytes allows";
/// Detail of the local reply to a head that is too large.
pub const HEAD_TOO_LARGE: &str = "the header is larger than limits.max_header_bytes allows";
/// Detail of the local reply to a head with too many fields.
pub const TOO_MANY_FIELDS: &str = "there are more header fields than limits.max_header_fields allows";

/// Limits of a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSize {
    /// Maximum length of the target, in bytes.
    pub uri: usize,
    /// Maximum size of the whole head, in bytes.
    pub bytes: usize,
    /// Maximum number of header fields.
    pub fields: usize,
}

impl From<&Limits> for HeadSize {
    fn from(limits: &Limits) -> Self {
        HeadSize {
            uri: limits.max_uri_bytes.get() as usize,
            bytes: limits.max_header_bytes.get() as usize,
            fields: limits.max_header_fields.get() as usize,
        }
    }
}

impl HeadSize {
    /// Returns the larger of both limits, for each value.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        HeadSize {
            uri: self.uri.max(other.uri),
            bytes: self.bytes.max(other.bytes),
            fields: self.fields.max(other.fields),
        }
    }

    /// Refuses a head that exceeds the limits. For every HTTP version, the size is that of the head in HTTP/1
    /// form. All cookies count as one field, because over HTTP/2 a browser sends each cookie in a separate
    /// field (RFC 9113 8.2.3).
    pub fn check(&self, request: &RequestHeader) -> Verdict {
        /// Length of the colon, the space, and the end of the line.
        const AROUND_FIELD: usize = 4;
        /// Number of bytes by which a separate Cookie field is longer than a `; ` between two cookies.
        const SPARED_BY_CRUMB: usize = "cookie".len() + AROUND_FIELD - "; ".len();
        /// Length of the request line without method and target, and of the empty line that ends the head.
        const AROUND_LINE: usize = 14;
        let target = request.raw_path().len();
        if target > self.uri {
            return Verdict::Reply(Reply::new(Problem::UriTooLong, URI_TOO_LONG));
        }
        let crumbs = request.headers.get_all(header::COOKIE).iter().count().saturating_sub(1);
        if request.headers.len() - crumbs > self.fields {
            return Verdict::Reply(Reply::new(Problem::HeadTooLarge, TOO_MANY_FIELDS));
        }
        let fields = request.headers.iter();
        let fields: usize =
            fields.map(|(name, value)| name.as_str().len() + value.len() + AROUND_FIELD).sum();
        if request.method.as_str().len() + target + AROUND_LINE + fields - crumbs * SPARED_BY_CRUMB
            > self.bytes
        {
            return Verdict::Reply(Reply::new(Problem::HeadTooLarge, HEAD_TOO_LARGE));
        }
        Verdict::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_at_limit_passes_and_one_more_is_refused() {
        // The head is "GET /abc HTTP/1.1", "a: b" twice, and an empty line.
        let mut request = RequestHeader::build("GET", b"/abc", None).unwrap();
        request.append_header("a", "b").unwrap();
        request.append_header("a", "b").unwrap();
        let fits = HeadSize { uri: 4, bytes: 33, fields: 2 };
        let status = |bounds: HeadSize| match bounds.check(&request) {
            Verdict::Continue(()) => 200,
            Verdict::Reply(reply) => reply.status(),
        };
        assert_eq!("GET /abc HTTP/1.1\r\na: b\r\na: b\r\n\r\n".len(), fits.bytes);
        assert_eq!(status(fits), 200);
        assert_eq!(status(HeadSize { uri: 3, ..fits }), 414);
        assert_eq!(status(HeadSize { bytes: 32, ..fits }), 431);
        assert_eq!(status(HeadSize { fields: 1, ..fits }), 431);
    }

    #[test]
    fn cookie_crumbs_count_as_one_field() {
        let joined = "GET / HTTP/1.1\r\ncookie: a=1; b=22; c=3\r\n\r\n";
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for crumb in ["a=1", "b=22", "c=3"] {
            request.append_header("cookie", crumb).unwrap();
        }
        let fits = HeadSize { uri: 4, bytes: joined.len(), fields: 1 };
        assert!(matches!(fits.check(&request), Verdict::Continue(())));
        assert!(matches!(HeadSize { bytes: joined.len() - 1, ..fits }.check(&request), Verdict::Reply(_)));
        request.append_header("x", "y").unwrap();
        assert!(matches!(HeadSize { bytes: 1000, ..fits }.check(&request), Verdict::Reply(_)));
    }

    #[test]
    fn combined_limits_are_the_wider_of_both() {
        let (one, other) =
            (HeadSize { uri: 1, bytes: 20, fields: 3 }, HeadSize { uri: 10, bytes: 2, fields: 3 });
        assert_eq!(one.or(other), HeadSize { uri: 10, bytes: 20, fields: 3 });
    }
}
