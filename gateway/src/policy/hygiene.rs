//! Refuses well-formed requests that no backend should get: with a method that the gateway does not serve, with
//! an expectation that it cannot meet, with a `Connection` field that would remove other fields, or with fields
//! that a backend could mistake for others.
//!
//! The syntax of an HTTP/1 request has been checked before (`downstream::http1`). The syntax of an HTTP/2 request
//! is checked here, as far as h2 and Pingora do not check it.

use http::header::{CONNECTION, EXPECT, MAX_FORWARDS, ORIGIN, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use pingora::Result;
use pingora::http::RequestHeader;

use super::Verdict;
use crate::reply::{Problem, Reply};
use crate::util::{decimal, field_list};

/// Methods that the gateway serves, as the value of Allow.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Maximum number of options in `Connection`; Pingora accepts no more.
const MAX_OPTIONS: usize = 9;

/// Fields that `Connection` must not name, because it would remove them (RFC 9110 7.6.1). The fields are meant
/// for the final recipient, or the gateway bases a decision on them.
const NOT_FOR_ONE_HOP: [&str; 16] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "max-forwards",
    "origin",
    "range",
    "transfer-encoding",
    "via",
    "x-real-ip",
    "x-request-id",
];

/// Field names with `_` that CGI and WSGI programs cannot distinguish from the same names with `-`.
const TWINS: [&str; 5] =
    ["content_length", "transfer_encoding", "x_forwarded_for", "x_forwarded_host", "x_forwarded_proto"];

/// Connection-specific fields, which HTTP/2 does not have (RFC 9113 8.2.2).
const NOT_IN_HTTP2: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Maximum length of a method, in bytes; the longest registered method has 17. A longer method gets 501, as RFC
/// 9112 3 demands for methods that are longer than any that the server knows.
pub const MAX_METHOD: usize = 32;

/// Detail of the local reply to a method that is longer than [`MAX_METHOD`].
pub const METHOD_TOO_LONG: &str = "the method is longer than every known method";

/// Rewrites Expect, Upgrade and TE to their simplest form, because Pingora compares the whole value of these
/// fields. This form has no empty members (RFC 9110 5.6.1). If the list is empty, the field is removed.
///
/// # Errors
/// Returns an error if Pingora refuses a value, which does not happen: it is part of an accepted value.
pub fn simplify_lists(request: &mut RequestHeader) -> Result<()> {
    for name in [EXPECT, UPGRADE, TE] {
        let mut lines = request.headers.get_all(&name).iter();
        let Some(first) = lines.next() else { continue };
        let is_simple = lines.next().is_none() && !first.is_empty() && !first.as_bytes().contains(&b',');
        if is_simple {
            continue;
        }
        let members: Vec<&[u8]> = field_list::members(&request.headers, &name).collect();
        let simple =
            HeaderValue::from_bytes(&members.join(&b", "[..])).ok().filter(|value| !value.is_empty());
        match simple {
            Some(simple) => request.insert_header(name, simple)?,
            None => drop(request.remove_header(&name)),
        }
    }
    Ok(())
}

/// Refuses a request that must not be routed.
pub fn check(request: &RequestHeader) -> Verdict {
    let verdict = if request.version == Version::HTTP_2 { http2(request) } else { http1(request) };
    if let Verdict::Reply(_) = verdict {
        return verdict;
    }
    if request.headers.keys().any(|name| TWINS.contains(&name.as_str())) {
        return bad("the name of a header field can be mistaken for that of another one");
    }
    if request.headers.get_all(ORIGIN).iter().nth(1).is_some() {
        // RFC 6454 7.3 allows one field. A backend might use one of the fields, and `[cors]` another.
        return bad("there are several Origin fields");
    }
    match method(request) {
        Some(reply) => Verdict::Reply(reply),
        None => expectation(request),
    }
}

/// Prepares a request for the backend, after [`check`] has accepted it. `version` is the client's HTTP version.
///
/// # Errors
/// Returns an error if Pingora refuses a field, which it does not do for a number.
pub fn on_request(version: Version, request: &mut RequestHeader) -> Result<()> {
    if let Some(left) = max_forwards(&request.headers).filter(|_| request.method == Method::OPTIONS) {
        request.insert_header(MAX_FORWARDS, left.saturating_sub(1).to_string())?;
    }
    if version <= Version::HTTP_10 {
        // RFC 9110 10.1.1: Expect has no meaning in a request of HTTP/1.0.
        request.remove_header(&EXPECT);
    }
    if version <= Version::HTTP_11 && !matches!(request.raw_path(), [b'/', ..] | b"*") {
        // The absolute form of a target is only for proxies (RFC 9112 3.2.1 and 3.2.2).
        let target = request.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        request.set_uri(Uri::from(target));
    }
    Ok(())
}

/// Returns true if a path may contain `byte`. The rule is the same for both HTTP versions, because the gateway
/// may get a request over one version and forward it over the other.
///
/// The set is larger than RFC 3986 2 allows: browsers leave `|`, `^` and brackets unencoded (percent-encode
/// sets of the URL standard), and programs leave braces unencoded. The set has no `#`, because a target has no
/// fragment (RFC 9110 7.1). The set also lacks the characters that browsers encode and the `http` crate refuses
/// in a URI, because Pingora itself would answer such a request over HTTP/1.
pub const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'`')
}

/// Returns true if a query may contain `byte`. Browsers also leave a backtick unencoded in a query.
pub const fn is_query_byte(byte: u8) -> bool {
    is_path_byte(byte) || byte == b'`'
}

/// Returns the position of the first byte that a request target must not contain.
pub fn foreign_byte(target: &[u8]) -> Option<usize> {
    let path = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(path);
    let in_query = || query.iter().position(|byte| !is_query_byte(*byte)).map(|at| path.len() + at);
    path.iter().position(|byte| !is_path_byte(*byte)).or_else(in_query)
}

fn bad(detail: &'static str) -> Verdict {
    // The connection closes, because such a client may send anything after this request.
    Verdict::Reply(Reply::new(Problem::BadRequest, detail).and_close())
}

/// Returns the local reply to a method that no route serves; `None` if routes serve the method.
fn method(request: &RequestHeader) -> Option<Reply> {
    if request.method == Method::TRACE {
        // RFC 9110 9.3.8: the response to TRACE would show the client the fields that the gateway has added.
        let reply = Reply::new(Problem::MethodNotAllowed, "TRACE is not allowed");
        return Some(reply.field(header::ALLOW, ALLOW));
    }
    if request.method.as_str().len() > MAX_METHOD {
        return Some(Reply::new(Problem::NotImplemented, METHOD_TOO_LONG));
    }
    if request.method == Method::CONNECT {
        return Some(Reply::new(
            Problem::NotImplemented,
            "CONNECT is not implemented: this is not a forward proxy",
        ));
    }
    // RFC 9110 7.6.2: with Max-Forwards 0 the gateway is the final recipient.
    let is_ours = request.method == Method::OPTIONS && max_forwards(&request.headers) == Some(0);
    is_ours.then(|| Reply::content("text/plain", "").field(header::ALLOW, ALLOW))
}

fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    decimal::strict(headers.get(MAX_FORWARDS)?.as_bytes()).ok()
}

/// Refuses any expectation other than 100-continue, which is the only defined expectation (RFC 9110 10.1.1). An
/// empty list passes.
fn expectation(request: &RequestHeader) -> Verdict {
    if request.version <= Version::HTTP_10 {
        return Verdict::Continue(());
    }
    let mut expectations = field_list::members(&request.headers, EXPECT);
    if expectations.all(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        return Verdict::Continue(());
    }
    let detail = "the only supported expectation is 100-continue";
    // The connection closes, because the gateway cannot know if the client sends the body.
    Verdict::Reply(Reply::new(Problem::ExpectationFailed, detail).and_close())
}

/// Refuses an HTTP/1 request whose `Connection` field is malformed or names a field that is not hop-by-hop.
fn http1(request: &RequestHeader) -> Verdict {
    for (i, option) in field_list::members(&request.headers, CONNECTION).enumerate() {
        if i == MAX_OPTIONS {
            return bad("the Connection field has too many options");
        }
        // `from_bytes` also accepts some options that are not tokens, but these match no name below.
        let Ok(name) = HeaderName::from_bytes(option) else {
            return bad("the Connection field has an option that is not a token");
        };
        let name = name.as_str();
        if NOT_FOR_ONE_HOP.contains(&name) || name.starts_with("x-forwarded-") {
            return bad("the Connection field names a field that is not hop-by-hop");
        }
    }
    Verdict::Continue(())
}

/// Refuses an HTTP/2 request that is malformed (RFC 9113 8.2, 8.3) in a way that neither h2 nor Pingora
/// detects.
fn http2(request: &RequestHeader) -> Verdict {
    let headers = &request.headers;
    if NOT_IN_HTTP2.iter().any(|name| headers.contains_key(name)) {
        return bad("there is a header field that HTTP/2 does not allow");
    }
    if field_list::members(headers, TE).any(|coding| coding != b"trailers") {
        return bad("the TE field has a value other than trailers");
    }
    let is_padded = |value: &HeaderValue| {
        let value = value.as_bytes();
        matches!(value.first(), Some(b' ' | b'\t')) || matches!(value.last(), Some(b' ' | b'\t'))
    };
    if headers.values().any(is_padded) {
        return bad("the value of a header field has white space around it");
    }
    // The scheme may be missing: h2 drops it if the client sends Host instead of :authority.
    if request.method != Method::CONNECT
        && request.uri.scheme_str().is_some_and(|it| it != "http" && it != "https")
    {
        return bad("the :scheme is neither http nor https");
    }
    let target = request.raw_path();
    let is_asterisk = target == b"*" && request.method == Method::OPTIONS;
    let is_path = target.first() == Some(&b'/') && foreign_byte(target).is_none();
    if is_path || is_asterisk || request.method == Method::CONNECT {
        return Verdict::Continue(());
    }
    bad("the :path is not a valid path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, method: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/", None).unwrap();
        request.set_version(version);
        if version == Version::HTTP_2 {
            request.set_uri("https://a/".parse().unwrap());
        }
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn status(request: &RequestHeader) -> u16 {
        match check(request) {
            Verdict::Continue(()) => 0,
            Verdict::Reply(reply) => reply.status(),
        }
    }

    #[test]
    fn connection_field_naming_an_end_to_end_field_gets_400() {
        for (connection, expected) in [
            ("close", 0),
            ("keep-alive, X-Mine", 0),
            ("Upgrade, HTTP2-Settings", 0),
            ("", 0),
            (",, close,", 0),
            ("close, Host", 400),
            ("content-length", 400),
            ("Transfer-Encoding", 400),
            ("x-forwarded-for", 400),
            ("X-Forwarded-Anything", 400),
            ("Authorization", 400),
            ("Cookie", 400),
            ("a b", 400),
            ("\"close\"", 400),
            (":authority", 400),
            ("a,b,c,d,e,f,g,h,i", 0),
            ("a,b,c,d,e,f,g,h,i,j", 400),
        ] {
            let request = request(Version::HTTP_11, "GET", &[("Connection", connection)]);
            assert_eq!(status(&request), expected, "{connection}");
        }
    }

    #[test]
    fn several_origin_fields_get_400() {
        let (one, other) = (("Origin", "https://a.example"), ("Origin", "https://evil.example"));
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(status(&request(version, "GET", &[one])), 0);
            assert_eq!(status(&request(version, "GET", &[one, other])), 400);
            assert_eq!(status(&request(version, "OPTIONS", &[one, one])), 400);
        }
    }

    #[test]
    fn unknown_expectation_gets_417_except_in_http_1_0() {
        for (version, value, expected) in [
            (Version::HTTP_11, "100-continue", 0),
            (Version::HTTP_11, "100-Continue", 0),
            (Version::HTTP_11, "teapots", 417),
            (Version::HTTP_11, "100-continue, teapots", 417),
            (Version::HTTP_11, "", 0),
            (Version::HTTP_11, ", ,", 0),
            (Version::HTTP_11, "100-continue,", 0),
            (Version::HTTP_11, ",100-CONTINUE, 100-continue", 0),
            (Version::HTTP_11, ",teapots", 417),
            (Version::HTTP_2, "", 0),
            (Version::HTTP_10, "teapots", 0),
            (Version::HTTP_2, "teapots", 417),
        ] {
            let mut request = request(version, "POST", &[("Expect", value)]);
            assert_eq!(status(&request), expected, "{version:?} {value}");
            simplify_lists(&mut request).unwrap();
            assert_eq!(status(&request), expected, "{version:?} {value}: the same");
            on_request(version, &mut request).unwrap();
            let expects = version != Version::HTTP_10 && value.contains('t');
            assert_eq!(request.headers.contains_key(EXPECT), expects, "{version:?} {value}");
        }
    }

    #[test]
    fn list_fields_are_rewritten_without_empty_members() {
        for (name, lines, simple) in [
            ("expect", &["100-continue"][..], &["100-continue"][..]),
            ("expect", &["100-continue,", ""], &["100-continue"]),
            ("expect", &["", ","], &[]),
            ("upgrade", &[",websocket ,"], &["websocket"]),
            ("upgrade", &["h2c,,websocket"], &["h2c, websocket"]),
            ("te", &["trailers", "gzip;q=0.5,"], &["trailers, gzip;q=0.5"]),
            ("te", &[""], &[]),
            ("accept", &["a,,b", ""], &["a,,b", ""]),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
            let mut request = request(Version::HTTP_11, "GET", &fields);
            simplify_lists(&mut request).unwrap();
            let left: Vec<_> = request.headers.get_all(name).iter().collect();
            assert_eq!(left, simple, "{name}: {lines:?}");
        }
    }

    #[test]
    fn target_accepts_the_bytes_that_browsers_send() {
        for (target, foreign) in [
            ("/a|b^c[d]{e}'f?q=`g`|^{}[]\\'%", None),
            ("/a?b??c=/?", None),
            ("/`", Some(1)),
            ("/a?`\"", Some(4)),
            ("/a?<", Some(3)),
            ("/>", Some(1)),
            ("/a?b#c", Some(4)),
            ("/a b", Some(2)),
            ("/é", Some(1)),
            ("/?é", Some(2)),
            ("/?\u{7f}", Some(2)),
        ] {
            assert_eq!(foreign_byte(target.as_bytes()), foreign, "{target:?}");
        }
    }

    #[test]
    fn method_that_is_not_served_gets_a_local_reply() {
        for (method, fields, expected) in [
            ("TRACE", &[][..], 405),
            ("TRACE", &[("Max-Forwards", "0")], 405),
            ("OPTIONS", &[("Max-Forwards", "0")], 200),
            ("OPTIONS", &[("Max-Forwards", "1")], 0),
            ("OPTIONS", &[("Max-Forwards", "x")], 0),
            ("GET", &[("Max-Forwards", "0")], 0),
            ("OPTIONS", &[("Max-Forwards", "+0")], 0),
            ("OPTIONS", &[("Max-Forwards", "00")], 0),
            ("CONNECT", &[], 501),
            ("UPDATEREDIRECTREF", &[], 0),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF", &[], 0),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", &[], 501),
        ] {
            assert_eq!(status(&request(Version::HTTP_11, method, fields)), expected, "{method} {fields:?}");
        }
        let mut forwarded = request(Version::HTTP_11, "OPTIONS", &[("Max-Forwards", "7")]);
        on_request(Version::HTTP_11, &mut forwarded).unwrap();
        assert_eq!(forwarded.headers["max-forwards"], "6");
    }

    #[test]
    fn http2_request_with_connection_fields_gets_400() {
        for (fields, expected) in [
            (&[("te", "trailers")][..], 0),
            (&[("te", "gzip")], 400),
            (&[("te", "")], 0),
            (&[("te", ",trailers,")], 0),
            (&[("te", "trailers, gzip")], 400),
            (&[("connection", "close")], 400),
            (&[("keep-alive", "1")], 400),
            (&[("proxy-connection", "close")], 400),
            (&[("upgrade", "websocket")], 400),
            (&[("transfer-encoding", "chunked")], 400),
            (&[("a", " b")], 400),
            (&[("a", "b\t")], 400),
            (&[("a", "b c")], 0),
            (&[("content_length", "5")], 400),
        ] {
            assert_eq!(status(&request(Version::HTTP_2, "GET", fields)), expected, "{fields:?}");
        }
    }
}
