//! Strict check of a response's head over HTTP/1 (RFC 9112 2 to 6): the counterpart of the check of requests. The
//! check is needed because Pingora's reader accepts lines that end with LF alone, folded lines, a length together with
//! chunks, and a megabyte of fields.
//!
//! The reader does no I/O. A head may arrive in pieces of any size; each line is checked once, when its end has
//! arrived.

use crate::config::Proxy;
use crate::util::field_list;
use crate::util::http1::bytes::is_field_value;
use crate::util::http1::{Fault, field};

/// Limits of a response's head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Maximum size of the head in bytes, including the status line.
    pub bytes: usize,
    /// Maximum number of fields.
    pub fields: usize,
}

impl From<&Proxy> for HeadLimits {
    fn from(proxy: &Proxy) -> Self {
        HeadLimits {
            bytes: proxy.max_response_header_bytes.get() as usize,
            fields: proxy.max_response_header_fields.get() as usize,
        }
    }
}

/// Framing of a response: the way in which the end of its body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body has this length in bytes.
    Length(u64),
    /// The body ends with its last chunk.
    Chunked,
    /// The body ends when the connection is closed.
    Close,
}

/// Facts about a complete and valid head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Length of the head in bytes, including the empty line at its end.
    pub length: usize,
    /// Status code.
    pub status: u16,
    /// Framing of the response.
    pub framing: Framing,
    /// True if the backend closes the connection after the response (RFC 9112 9.3).
    pub closes: bool,
}

/// Reader of one head, which may arrive in pieces.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Index of the first byte of the current line, whose end has not arrived yet.
    line: usize,
    /// Number of bytes that have been searched for the end of a line.
    searched: usize,
    status: Option<StatusLine>,
    fields: usize,
    length: Option<u64>,
    is_chunked: bool,
    says_close: bool,
    says_keep_alive: bool,
}

#[derive(Clone, Copy, Debug)]
struct StatusLine {
    is_http_10: bool,
    code: u16,
}

impl HeadReader {
    /// Reads a head. `bytes` is the part that has arrived, including the bytes of earlier calls. Returns `None` while
    /// the head is incomplete.
    ///
    /// # Errors
    /// Returns an error that says what is wrong with the head, even if the rest of the head has not arrived.
    pub fn read(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<Head>, Fault> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + at;
            let Some(line) = bytes[self.line..end].strip_suffix(b"\r") else {
                return Err("a line of the header ends without a carriage return");
            };
            (self.line, self.searched) = (end + 1, end + 1);
            if end >= limits.bytes {
                return Err(TOO_LARGE);
            }
            match self.status {
                None => self.status = Some(StatusLine::read(line)?),
                Some(status) if line.is_empty() => return self.judge(status, end + 1).map(Some),
                Some(_) => self.take_field(line, limits)?,
            }
        }
        self.searched = bytes.len();
        if bytes.len() > limits.bytes { Err(TOO_LARGE) } else { Ok(None) }
    }

    fn take_field(&mut self, line: &[u8], limits: &HeadLimits) -> Result<(), Fault> {
        self.fields += 1;
        if self.fields > limits.fields {
            return Err("there are more header fields than proxy.max_response_header_fields allows");
        }
        let (name, at) = field::split(line)?;
        let value = &line[at];
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in field_list::members_of(value) {
                    self.says_close |= option.eq_ignore_ascii_case(b"close");
                    self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                for length in field_list::parts(value) {
                    let length = field::content_length(length)?;
                    if self.length.replace(length).is_some_and(|before| before != length) {
                        return Err("there are several Content-Length fields that differ");
                    }
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") || self.is_chunked {
                    return Err("the Transfer-Encoding is something other than one chunked");
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the rules that depend on several fields, once the head is complete.
    fn judge(&self, status: StatusLine, length: usize) -> Result<Head, Fault> {
        let framing = match (self.is_chunked, self.length) {
            // RFC 9112 6.3: this is a sign of response splitting.
            (true, Some(_)) => return Err("there are both Content-Length and Transfer-Encoding"),
            // RFC 9112 6.1: the framing of such a message is faulty.
            (true, None) if status.is_http_10 => return Err("HTTP/1.0 does not have Transfer-Encoding"),
            (true, None) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Close,
        };
        let closes = self.says_close || (status.is_http_10 && !self.says_keep_alive);
        Ok(Head { length, status: status.code, framing, closes })
    }
}

impl StatusLine {
    /// Parses `version SP code [SP reason]` (RFC 9112 4). Some servers leave out the space before an empty reason.
    fn read(line: &[u8]) -> Result<Self, Fault> {
        let (version, rest) = line.split_at_checked(9).ok_or(NO_STATUS_LINE)?;
        let is_http_10 = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(NO_STATUS_LINE),
        };
        let (code, reason) = rest.split_first_chunk::<3>().ok_or(NO_STATUS_LINE)?;
        if !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' {
            return Err("the status code is not a number from 100 to 999");
        }
        if !matches!(reason, [] | [b' ', ..]) || !is_field_value(reason) {
            return Err("the reason phrase of the status line is malformed");
        }
        let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        Ok(StatusLine { is_http_10, code })
    }
}

const TOO_LARGE: Fault = "the header is larger than proxy.max_response_header_bytes allows";
const NO_STATUS_LINE: Fault = "it does not begin with a status line of HTTP/1.0 or HTTP/1.1";

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 200, fields: 4 };

    fn in_pieces(bytes: &[u8], size: usize) -> Result<Option<Head>, Fault> {
        let mut reader = HeadReader::default();
        let ends = (size..bytes.len()).step_by(size).chain([bytes.len()]);
        for end in ends {
            if let Some(head) = reader.read(&bytes[..end], &LIMITS)? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    #[test]
    fn head_in_pieces_of_any_size_gives_framing() {
        for (head, framing, closes) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::Close, false),
            ("HTTP/1.1 200\r\nA:b\r\n\r\n", Framing::Close, false),
            ("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", Framing::Length(5), false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\ncontent-length:05\r\n\r\n",
                Framing::Length(5),
                false,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, false),
            ("HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: y, Close\r\n\r\n", Framing::Close, true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Framing::Length(0), true),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
                Framing::Length(0),
                false,
            ),
        ] {
            for size in 1..=head.len() {
                let expected = Head { length: head.len(), status: 200, framing, closes };
                assert_eq!(
                    in_pieces(head.as_bytes(), size),
                    Ok(Some(expected)),
                    "{head:?} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn ambiguous_head_is_refused() {
        let fields = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(in_pieces(fields(LIMITS.fields).as_bytes(), 7).is_ok());
        for head in [
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 \x01\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\"b: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\n:path: /\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &fields(LIMITS.fields + 1),
            &format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(LIMITS.bytes)),
        ] {
            for size in [1, 3, head.len()] {
                assert!(in_pieces(head.as_bytes(), size).is_err(), "{head:?} in pieces of {size}");
            }
        }
    }
}
