//! Strict check of a request head (RFC 9112 2 to 6). The gateway refuses a head that two parsers could read
//! differently, because such differences make request smuggling possible (RFC 9112 11.2). Pingora's parser is more
//! lenient than others in some points, and stricter in other points.
//!
//! The check works on bytes alone, in chunks of any size. It checks each line once, when the line's end has arrived.

use std::ops::Range;

use super::refusal::Refusal;
use crate::config::normalise_host;
use crate::policy::content_length;
use crate::policy::head_size::{HEAD_TOO_LARGE, HeadSize, TOO_MANY_FIELDS, URI_TOO_LONG};
use crate::policy::hygiene::{MAX_METHOD, METHOD_TOO_LONG, foreign_byte};
use crate::reply::Problem;
use crate::util::field_list;
use crate::util::http1::bytes::is_token;
use crate::util::http1::field;

/// Maximum number of empty lines before a request (RFC 9112 2.2 asks a server to accept at least one).
const EMPTY_LINES: usize = 2;

/// Length of a version such as `HTTP/1.1`.
const VERSION: usize = 8;

/// First bytes of a TLS handshake: the record type, and the first byte of any version (RFC 8446 5.1).
const TLS_HANDSHAKE: &[u8] = &[0x16, 3];

/// Framing of a request body: the rule that determines its end (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Body of this many bytes.
    Length(u64),
    /// Chunked body, which ends with its last chunk.
    Chunked,
}

/// Result for a head that is complete and valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Length in bytes, including the empty line that ends the head.
    pub length: usize,
    /// Framing of the body that follows.
    pub framing: Framing,
}

/// Checker of one head, which may arrive in chunks of any size.
#[derive(Clone, Debug, Default)]
pub struct HeadReader {
    /// Offset of the line whose end has not arrived.
    line: usize,
    /// Offset up to which that line has been searched for its line end.
    searched: usize,
    empty_lines: usize,
    request_line: Option<RequestLine>,
    fields: usize,
    /// Position of the value of `Host`.
    host: Option<Range<usize>>,
    length: Option<u64>,
    is_chunked: bool,
}

/// Properties of the request line that the later checks need.
#[derive(Clone, Debug)]
struct RequestLine {
    is_http_10: bool,
    is_head: bool,
    /// Position of the authority in a target in absolute form; `None` for any other target.
    authority: Option<Range<usize>>,
}

impl HeadReader {
    /// Checks the head at the front of `bytes`, which must begin with the bytes of earlier calls. Returns `None` if the
    /// end of the head has not arrived.
    ///
    /// # Errors
    /// Returns an error as soon as the head is certainly invalid.
    pub fn read(&mut self, bytes: &[u8], bounds: &HeadSize) -> Result<Option<Head>, Refusal> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + at;
            let Some(line) = bytes[self.line..end].strip_suffix(b"\r") else {
                return Err(Refusal::bad("a line of the header ends without a carriage return"));
            };
            let start = std::mem::replace(&mut self.line, end + 1);
            self.searched = end + 1;
            if end >= bounds.bytes {
                return Err(self.too_large());
            }
            if !line.is_empty() {
                self.take_line(start, line, bounds)?;
            } else if self.request_line.is_some() {
                return self.judge(bytes).map(|framing| Some(Head { length: end + 1, framing }));
            } else {
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES {
                    return Err(Refusal::bad("there are empty lines before the request"));
                }
            }
        }
        self.searched = bytes.len();
        self.check_unfinished(&bytes[self.line..], bounds)?;
        Ok(None)
    }

    /// Returns true for a HEAD request. Its response must not have a body, even if its fields announce one.
    pub fn is_head_request(&self) -> bool {
        self.request_line.as_ref().is_some_and(|line| line.is_head)
    }

    fn take_line(&mut self, start: usize, line: &[u8], bounds: &HeadSize) -> Result<(), Refusal> {
        if self.request_line.is_none() {
            self.request_line = Some(RequestLine::read(start, line, bounds)?);
            return Ok(());
        }
        self.fields += 1;
        if self.fields > bounds.fields {
            return Err(Refusal { problem: Problem::HeadTooLarge, detail: TOO_MANY_FIELDS });
        }
        let (name, at) = field::split(line).map_err(Refusal::bad)?;
        let value = &line[at.clone()];
        let twice = match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.host.replace(start + at.start..start + at.end).map(|_| "there are several Host fields")
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = content_length::read(value).map_err(Refusal::bad)?;
                self.length.replace(length).map(|_| "there are several Content-Length fields")
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                transfer_encoding(value)?;
                let before = std::mem::replace(&mut self.is_chunked, true);
                before.then_some("there are several Transfer-Encoding fields")
            }
            _ => None,
        };
        twice.map_or(Ok(()), |detail| Err(Refusal::bad(detail)))
    }

    /// Checks a line whose end has not arrived, as far as its bytes allow.
    fn check_unfinished(&self, line: &[u8], bounds: &HeadSize) -> Result<(), Refusal> {
        if self.request_line.is_none() && !matches!(line, b"" | b"\r") {
            check_unfinished_request_line(line, bounds)?;
        }
        if line.contains(&0) {
            return Err(Refusal::bad("there is a NUL byte in the header"));
        }
        if self.line + line.len() > bounds.bytes { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> Refusal {
        match self.request_line {
            Some(_) => Refusal { problem: Problem::HeadTooLarge, detail: HEAD_TOO_LARGE },
            None => Refusal { problem: Problem::UriTooLong, detail: URI_TOO_LONG },
        }
    }

    /// Checks the properties that depend on the whole head, and returns the framing of the body.
    fn judge(&mut self, bytes: &[u8]) -> Result<Framing, Refusal> {
        let Some(line) = &self.request_line else { return Err(Refusal::bad("there is no request line")) };
        let part = |at: &Option<Range<usize>>| at.clone().map(|at| &bytes[at]);
        check_host(line.is_http_10, part(&self.host), part(&line.authority))?;
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err(Refusal::bad("there are both Content-Length and Transfer-Encoding")),
            // RFC 9112 6.1: the framing of such a request is faulty.
            (true, None) if line.is_http_10 => Err(Refusal::bad("HTTP/1.0 does not have Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Checks a request line whose end has not arrived. Each part of the line has a separate error if it is too long.
fn check_unfinished_request_line(line: &[u8], bounds: &HeadSize) -> Result<(), Refusal> {
    if line.starts_with(TLS_HANDSHAKE) {
        return Err(Refusal::bad("this port speaks HTTP without TLS, and the client began a TLS handshake"));
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    check_method(parts.next().unwrap_or_default())?;
    if parts.next().is_some_and(|target| target.len() > bounds.uri) {
        return Err(Refusal { problem: Problem::UriTooLong, detail: URI_TOO_LONG });
    }
    if parts.next().is_some_and(|version| version.len() > VERSION) {
        return Err(Refusal::bad("the request line does not end with an HTTP version"));
    }
    Ok(())
}

/// Checks a method or the beginning of a method. A method must be a token (RFC 9110 9.1), and no longer than the
/// longest known method (RFC 9112 3).
fn check_method(method: &[u8]) -> Result<(), Refusal> {
    if !is_token(method) {
        return Err(Refusal::bad("the request line has no valid method"));
    }
    if method.len() > MAX_METHOD {
        return Err(Refusal { problem: Problem::NotImplemented, detail: METHOD_TOO_LONG });
    }
    Ok(())
}

impl RequestLine {
    /// Parses `method SP target SP version` (RFC 9112 3), with exactly one space between two parts.
    fn read(start: usize, line: &[u8], bounds: &HeadSize) -> Result<Self, Refusal> {
        if line.starts_with(TLS_HANDSHAKE) {
            return Err(Refusal::bad(
                "this port speaks HTTP without TLS, and the client began a TLS handshake",
            ));
        }
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::bad("the request line is not a method, a target and a version"));
        };
        check_method(method)?;
        let is_http_10 = is_http_10(version)?;
        if target.len() > bounds.uri {
            return Err(Refusal { problem: Problem::UriTooLong, detail: URI_TOO_LONG });
        }
        if target.is_empty() || foreign_byte(target).is_some() {
            return Err(Refusal::bad("the target is empty or has invalid bytes"));
        }
        if method == b"CONNECT" {
            // RFC 9110 9.3.6: the gateway offers no tunnel to other servers.
            let detail = "CONNECT is not implemented: this is not a forward proxy";
            return Err(Refusal { problem: Problem::NotImplemented, detail });
        }
        let authority = authority(method, target)?;
        let at = start + method.len() + 1;
        let authority = authority.map(|authority| at + authority.start..at + authority.end);
        Ok(RequestLine { is_http_10, is_head: method == b"HEAD", authority })
    }
}

/// Returns the position of the authority in a target; `None` if the target has no authority (RFC 9112 3.2).
fn authority(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
    if target[0] == b'/' || (target == b"*" && method == b"OPTIONS") {
        return Ok(None);
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else {
        return Err(Refusal::bad("the target is neither a path nor a URL of http or https"));
    };
    let rest = &target[scheme.len()..];
    let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Ok(Some(scheme.len()..scheme.len() + length))
}

fn is_http_10(version: &[u8]) -> Result<bool, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            let detail = "this connection supports only HTTP/1.0 and HTTP/1.1";
            Err(Refusal { problem: Problem::VersionNotSupported, detail })
        }
        _ => Err(Refusal::bad("the request line does not end with an HTTP version")),
    }
}

/// Returns an error unless the transfer coding is `chunked`.
fn transfer_encoding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = field_list::parts(value).rev();
    let is_last = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    if is_last && codings.all(|coding| is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked")) {
        // RFC 9112 6.1: the gateway does not understand this coding.
        let detail = "the only supported transfer coding is chunked";
        return Err(Refusal { problem: Problem::NotImplemented, detail });
    }
    Err(Refusal::bad("the Transfer-Encoding field is not chunked"))
}

/// Checks that the head names exactly one host (RFC 9112 3.2).
fn check_host(is_http_10: bool, host: Option<&[u8]>, authority: Option<&[u8]>) -> Result<(), Refusal> {
    let is_host = |host: &[u8]| std::str::from_utf8(host).is_ok_and(|host| normalise_host(host).is_ok());
    match (host, authority) {
        (None, _) if !is_http_10 => Err(Refusal::bad("there is no Host field, which HTTP/1.1 requires")),
        (Some(host), _) if !is_host(host) => Err(Refusal::bad("the Host field is not a valid host name")),
        (_, Some(authority)) if !is_host(authority) => {
            Err(Refusal::bad("the target's host is not a valid host name"))
        }
        // RFC 9112 3.2: a client sends the same host twice. If the two differed, a backend might use the other one.
        (Some(host), Some(authority)) if host != authority => {
            Err(Refusal::bad("the Host field and the target name different hosts"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: HeadSize = HeadSize { uri: 40, bytes: 200, fields: 4 };

    /// Returns the verdict on `bytes` that arrive in chunks of `size`; `None` if more bytes are needed.
    fn in_pieces(bytes: &[u8], size: usize) -> Option<Result<Head, Refusal>> {
        let mut reader = HeadReader::default();
        let ends = (size..bytes.len()).step_by(size).chain([bytes.len()]);
        ends.map(|end| reader.read(&bytes[..end], &BOUNDS)).find_map(Result::transpose)
    }

    fn status(verdict: Option<Result<Head, Refusal>>) -> u16 {
        verdict.map_or(0, |verdict| verdict.map_or_else(|refusal| refusal.problem.status().as_u16(), |_| 200))
    }

    #[test]
    fn verdict_on_a_head_does_not_depend_on_chunk_size() {
        for (head, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], 200),
            (b"\r\n\r\nGET / HTTP/1.0\r\n\r\n", 200),
            (b"\r\n\r\n\r\nGET / HTTP/1.0\r\n\r\n", 400),
            (b"OPTIONS * HTTP/1.1\r\nHost:a\r\n\r\n", 200),
            (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET HTTPS://a?b HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
            (b"GET http:a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\nHost: a\n\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
            (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.0\r\n\r\n", 200),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.0\r\n\r\n", 501),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", 501),
            (b"GET / HTTP/1.11\r\n\r\n", 400),
            (b"GET / HTTP/1.11", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", 400),
            (b"GET /?`\\|^ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET http://a/b?` HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET /` HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
            (b"GET /0123456789012345678901234567890123456789 HTTP/1.1\r\nHost: a\r\n\r\n", 414),
            (b"GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\nC:\r\n\r\n", 200),
            (b"GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n", 431),
            (b"\x16\x03\x01\x00", 400),
            (b"\x00", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", 0),
            (b"\r", 0),
        ] {
            for size in 1..=head.len() {
                let text = String::from_utf8_lossy(head);
                assert_eq!(status(in_pieces(head, size)), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_head_ends_where_its_body_begins() {
        for (head, framing) in [
            ("", Framing::Length(0)),
            ("Content-Length: 5\r\n", Framing::Length(5)),
            ("Content-Length:\t9223372036854775807 \r\n", Framing::Length(i64::MAX as u64)),
            ("transfer-encoding: Chunked\r\n", Framing::Chunked),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n");
            let mut reader = HeadReader::default();
            let read = reader.read(format!("{head}hello\n").as_bytes(), &BOUNDS);
            assert_eq!(read, Ok(Some(Head { length: head.len(), framing })), "{head}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_when_it_is_too_long() {
        let endless = |start: &str| format!("{start}{}", "x".repeat(300));
        assert_eq!(status(in_pieces(endless("GET /").as_bytes(), 10)), 414);
        assert_eq!(status(in_pieces(endless("GET / HTTP/").as_bytes(), 10)), 400);
        assert_eq!(status(in_pieces(endless("").as_bytes(), 10)), 501);
        assert_eq!(status(in_pieces(endless("GET / HTTP/1.1\r\nX: ").as_bytes(), 10)), 431);
    }

    #[test]
    fn three_byte_heads_get_same_verdict_in_one_or_three_chunks() {
        // All heads that consist of three of these bytes, in one chunk and in three.
        let bytes = b"G /:\r\n \t\0\x16\xff";
        for code in 0..bytes.len().pow(3) {
            let pick = |power: u32| bytes[code / bytes.len().pow(power) % bytes.len()];
            let head = [pick(0), pick(1), pick(2)];
            assert_eq!(status(in_pieces(&head, 1)), status(in_pieces(&head, 3)), "{head:?}");
        }
    }
}
