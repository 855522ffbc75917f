//! Cases for HTTP/2, frame by frame. The h2 crate rejects many of them itself, with a reset or a GOAWAY. In
//! every case, no malformed request may reach the origin.

use super::origin::{Recorder, Seen};
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, Wire, block};
use crate::support::{Gateway, Setup};

/// A case: the fields of a head, and the body. In field values, `{}` stands for a path that is unique to the case.
struct Case {
    name: &'static str,
    /// RFC number and section.
    rfc: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// Body, if the request has one.
    data: Option<&'static str>,
    expect: Expect,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// The origin sees the request with this body.
    Passes(&'static str),
    /// The request gets an error status or a reset, or the connection ends. The origin sees no whole request.
    Refused,
    /// The request is refused with a local reply of this status.
    Answered(u16),
    /// The request is refused with this status by Pingora: the reply has a head only, and the gateway does not
    /// see the request.
    Bare(u16),
}

use Expect::{Answered, Bare, Passes, Refused};

const M: (&str, &str) = (":method", "GET");
const S: (&str, &str) = (":scheme", "http");
const A: (&str, &str) = (":authority", "a");
const P: (&str, &str) = (":path", "{}");
const POST: (&str, &str) = (":method", "POST");

macro_rules! case {
    ($name:literal, $rfc:literal, [$($field:expr),*], $expect:expr) => {
        Case { name: $name, rfc: $rfc, fields: &[$($field),*], data: None, expect: $expect }
    };
    ($name:literal, $rfc:literal, [$($field:expr),*], $data:literal, $expect:expr) => {
        Case { name: $name, rfc: $rfc, fields: &[$($field),*], data: Some($data), expect: $expect }
    };
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    case!("a plain request", "9113 8.3.1", [M, S, A, P], Passes("")),
    case!("a host in place of an authority", "9113 8.3.1", [M, S, P, ("host", "a")], Passes("")),
    case!("a body of the length that it says", "9113 8.1.1", [POST, S, A, P, ("content-length", "5")], "hello", Passes("hello")),
    case!("a body without a length", "9113 8.1", [POST, S, A, P], "hello", Passes("hello")),
    case!("no method", "9113 8.3.1", [S, A, P], Refused),
    case!("no scheme", "9113 8.3.1", [M, A, P], Refused),
    case!("no path", "9113 8.3.1", [M, S, A], Refused),
    case!("no authority, no host", "9113 8.3.1", [M, S, P], Bare(400)),
    case!("an empty path", "9113 8.3.1", [M, S, A, (":path", "")], Refused),
    case!("a path without a slash", "9113 8.3.1", [M, S, A, (":path", "case")], Refused),
    case!("an asterisk for GET", "9113 8.3.1", [M, S, A, (":path", "*")], Refused),
    case!("an absolute path", "9113 8.3.1", [M, S, A, (":path", "http://a/")], Refused),
    case!("a path with a fragment, which h2 drops", "9113 8.3.1", [M, S, A, (":path", "{}#/admin")], Passes("")),
    case!("a path with a space", "9113 8.3.1", [M, S, A, (":path", "/case/ x")], Refused),
    case!("a path with a line's end", "9113 8.2.1", [M, S, A, (":path", "/case/\r\nx: y")], Refused),
    case!("a path with a NUL", "9113 8.2.1", [M, S, A, (":path", "/case/\0")], Refused),
    case!("a path beyond ASCII", "9113 8.3.1", [M, S, A, (":path", "/case/\u{e4}")], Refused),
    case!("a query with what browsers send", "3986 2", [M, S, A, (":path", "{}?a=`b`|^[]'\\%")], Passes("")),
    case!("a path with a backtick", "3986 2", [M, S, A, (":path", "/case/`")], Refused),
    case!("a path with a quote, which HTTP/1 does not have", "9113 8.3.1", [M, S, A, (":path", "/case/\"x")], Answered(400)),
    case!("an empty scheme", "9113 8.3.1", [M, (":scheme", ""), A, P], Refused),
    case!("another scheme", "9113 8.3.1", [M, (":scheme", "ftp"), A, P], Refused),
    case!("a scheme that is none", "9113 8.3.1", [M, (":scheme", "http://x/?"), A, P], Refused),
    case!("an authority with a user", "9113 8.3.1", [M, S, (":authority", "u@a"), P], Bare(400)),
    case!("an authority that is none", "9113 8.3.1", [M, S, (":authority", "a b"), P], Refused),
    case!("an empty authority", "9113 8.3.1", [M, S, (":authority", ""), P], Refused),
    case!("an authority with a path", "9113 8.3.1", [M, S, (":authority", "a/b"), P], Refused),
    case!("another host than authority", "9113 8.3.1", [M, S, A, P, ("host", "b")], Bare(400)),
    case!("two hosts", "9113 8.3.1", [M, S, A, P, ("host", "a"), ("host", "b")], Bare(400)),
    case!("two methods", "9113 8.3", [M, POST, S, A, P], Refused),
    case!("two paths", "9113 8.3", [M, S, A, P, (":path", "/x")], Refused),
    case!("two authorities", "9113 8.3", [M, S, A, A, P], Refused),
    case!("an unknown pseudo-header field", "9113 8.3", [M, S, A, P, (":foo", "x")], Refused),
    case!("one of responses", "9113 8.3", [M, S, A, P, (":status", "200")], Refused),
    case!("one behind other fields", "9113 8.3", [M, S, A, ("x", "y"), P], Refused),
    case!("CONNECT", "9113 8.5", [(":method", "CONNECT"), (":authority", "a:80")], Answered(501)),
    case!("CONNECT with a protocol", "8441 4", [(":method", "CONNECT"), (":protocol", "websocket"), S, A, P], Refused),
    case!("TRACE", "9110 9.3.8", [(":method", "TRACE"), S, A, P], Answered(405)),
    case!("a method that is no token", "9113 8.3.1", [(":method", "GE T"), S, A, P], Refused),
    case!("connection", "9113 8.2.2", [M, S, A, P, ("connection", "close")], Refused),
    case!("keep-alive", "9113 8.2.2", [M, S, A, P, ("keep-alive", "1")], Refused),
    case!("proxy-connection", "9113 8.2.2", [M, S, A, P, ("proxy-connection", "close")], Refused),
    case!("transfer-encoding", "9113 8.2.2", [POST, S, A, P, ("transfer-encoding", "chunked")], "0\r\n\r\n", Refused),
    case!("upgrade", "9113 8.2.2", [M, S, A, P, ("upgrade", "websocket")], Refused),
    case!("te with more than trailers", "9113 8.2.2", [M, S, A, P, ("te", "gzip")], Refused),
    case!("te with trailers", "9113 8.2.2", [M, S, A, P, ("te", "trailers")], Passes("")),
    case!("a name in capitals", "9113 8.2.1", [M, S, A, P, ("X-A", "b")], Refused),
    case!("a name with a space", "9113 8.2.1", [M, S, A, P, ("x a", "b")], Refused),
    case!("a name with a colon", "9113 8.2.1", [M, S, A, P, ("x:a", "b")], Refused),
    case!("an empty name", "9113 8.2.1", [M, S, A, P, ("", "b")], Refused),
    case!("a value with a line's end", "9113 8.2.1", [M, S, A, P, ("x", "a\r\nb: c")], Refused),
    case!("a value with a NUL", "9113 8.2.1", [M, S, A, P, ("x", "a\0b")], Refused),
    case!("a value with a space before it", "9113 8.2.1", [M, S, A, P, ("x", " a")], Refused),
    case!("a value with a tab behind it", "9113 8.2.1", [M, S, A, P, ("x", "a\t")], Refused),
    case!("two lengths", "9113 8.1.1", [POST, S, A, P, ("content-length", "5"), ("content-length", "5")], "hello", Refused),
    case!("a list of lengths", "9113 8.1.1", [POST, S, A, P, ("content-length", "5, 5")], "hello", Refused),
    case!("a length with a sign", "9113 8.1.1", [POST, S, A, P, ("content-length", "+5")], "hello", Refused),
    case!("a length that some take for octal", "9110 8.6", [POST, S, A, P, ("content-length", "010")], "0123456789", Answered(400)),
    case!("a body that is too long", "9113 8.1.1", [POST, S, A, P, ("content-length", "4")], "hello", Refused),
    case!("a body that is too short", "9113 8.1.1", [POST, S, A, P, ("content-length", "6")], "hello", Refused),
    case!("a body that is a request", "9113 10.3", [POST, S, A, P, ("content-length", "0")], "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n", Refused),
    case!("no expectation", "9110 5.6.1", [POST, S, A, P, ("expect", ""), ("content-length", "5")], "hello", Passes("hello")),
    case!("an expectation with an empty member", "9110 5.6.1", [POST, S, A, P, ("expect", "100-continue,"), ("content-length", "5")], "hello", Passes("hello")),
    case!("te with empty members", "9110 5.6.1", [M, S, A, P, ("te", ",trailers,")], Refused),
    case!("a method of 33 bytes", "9112 3", [(":method", "ABCDEFGHIJKLMNOPQRSTUVWXYZ-123456"), S, A, P], Answered(501)),
    case!("another expectation", "9110 10.1.1", [M, S, A, P, ("expect", "teapots")], Answered(417)),
    case!("a name that passes for another", "9112 11.2", [POST, S, A, P, ("content_length", "5")], "hello", Answered(400)),
    case!("too many fields", "6585 5", [M, S, A, P, ("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1"), ("f", "1"), ("g", "1"), ("h", "1"), ("i", "1")], Answered(431)),
    case!("too long a path", "9110 15.5.15", [M, S, A, (":path", "/case/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")], Answered(414)),
];

#[tokio::test]
async fn http2_requests_are_validated() {
    let recorder = Recorder::start().await;
    let tables = "[health_check]\nenabled = false\n[limits]\nmax_uri_bytes = 60\nmax_header_fields = 8\n";
    let setup = Setup { proxy: "http2_cleartext = true", tables };
    let gateway = Gateway::start_over(&[recorder.address], setup).await;
    let mut faults = Vec::new();
    for (i, case) in CASES.iter().enumerate() {
        let target = format!("/case/{i}");
        let (status, is_bare) = send(case, &target, &gateway).await.unzip();
        let seen = recorder.seen(&target);
        let whole: Vec<&Seen> = seen.iter().filter(|seen| seen.is_whole).collect();
        let is_right = match case.expect {
            Passes(body) => status == Some(200) && whole.len() == 1 && whole[0].body == body,
            Refused => status.is_none_or(|status| status >= 400) && whole.is_empty(),
            Answered(expected) => status == Some(expected) && is_bare == Some(false) && seen.is_empty(),
            Bare(expected) => status == Some(expected) && is_bare == Some(true) && seen.is_empty(),
        };
        let ambiguous = seen.iter().find_map(Seen::ambiguity);
        if !is_right || ambiguous.is_some() {
            let Case { name, rfc, expect, .. } = case;
            faults.push(format!(
                "{name} (RFC {rfc}): expected {expect:?}, got {status:?} {ambiguous:?} {seen:?}"
            ));
        }
        let canary = format!("/case/canary-{i}");
        assert_eq!(gateway.get(&canary).await.text(), format!("saw {canary}\n"), "after {}", case.name);
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), CASES.len(), faults.join("\n"));
    let whole = recorder.outside("/case/");
    assert!(whole.is_empty(), "the origin saw what nobody sent: {whole:?}");
    let log = gateway.process.output();
    for (i, _) in CASES.iter().enumerate().filter(|(_, case)| matches!(case.expect, Bare(_))) {
        assert!(!log.contains(&format!(" /case/{i} ")), "{log}");
    }
    assert_eq!(super::complaints(&gateway), Vec::<String>::new());
}

/// Sends a case on a new connection. Returns the status of the response and whether its head ends the stream;
/// `None` without a response.
async fn send(case: &Case, target: &str, gateway: &Gateway) -> Option<(u16, bool)> {
    let fields: Vec<_> =
        case.fields.iter().map(|(name, value)| (*name, value.replace("{}", target))).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let end = if case.data.is_none() { END_STREAM } else { 0 };
    let mut frames = vec![Frame::new(HEADERS, END_HEADERS | end, 1, block(&fields))];
    frames.extend(case.data.map(|data| Frame::new(DATA, END_STREAM, 1, data)));
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(&frames).await;
    let answer =
        wire.find(|it| it.kind == GOAWAY || (it.stream == 1 && [HEADERS, RST_STREAM].contains(&it.kind)));
    answer.await.filter(|answer| answer.kind == HEADERS).map(|answer| (answer.status(), answer.is_end()))
}
