//! The strict check of a response's head over HTTP/1 (RFC 9112 2 to 6): the counterpart of the one that requests pass.
//! Pingora's reader takes lines that end with LF alone, folded lines, a length beside chunks, and a megabyte of fields.
//!
//! Bytes in, verdict out. A head may come in any pieces; each line is looked at once, when its end is there.

use crate::config::Proxy;
use crate::util::http1::bytes::{is_field_value, trim_ows};
use crate::util::http1::{Fault, field};

/// Bounds of a response's head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Largest head, in bytes, with its status line.
    pub bytes: usize,
    /// Largest number of fields.
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

/// How a response says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// It does not say: the body ends with the connection.
    Close,
}

/// A head that is whole, and valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Length of the head in bytes, with the empty line that ends it.
    pub length: usize,
    /// The status code.
    pub status: u16,
    /// How the response says where its body ends.
    pub framing: Framing,
    /// Whether the backend closes the connection behind the response (RFC 9112 9.3).
    pub closes: bool,
}

/// Reader of one head.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Where the line begins that has no end yet.
    line: usize,
    /// How far the bytes have been searched for that end.
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
    /// Looks at a head of which `bytes` are there, those of earlier calls included. Returns `None` as long as the head
    /// has no end.
    ///
    /// # Errors
    /// What is wrong with the head, as soon as that is certain.
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
                for option in value.split(|byte| *byte == b',').map(trim_ows) {
                    self.says_close |= option.eq_ignore_ascii_case(b"close");
                    self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                for length in value.split(|byte| *byte == b',').map(trim_ows) {
                    let length = field::content_length(length)?;
                    if self.length.replace(length).is_some_and(|before| before != length) {
                        return Err("there are several Content-Length fields that differ");
                    }
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") || self.is_chunked {
                    return Err("the Transfer-Encoding is not chunked alone");
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// What only the head as a whole can tell.
    fn judge(&self, status: StatusLine, length: usize) -> Result<Head, Fault> {
        let framing = match (self.is_chunked, self.length) {
            // RFC 9112 6.3: a sign of response splitting.
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
    /// `version SP code [SP reason]` (RFC 9112 4); servers are known that leave the space before an empty reason out.
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
    fn a_head_says_where_its_body_ends_in_whatever_pieces_it_comes() {
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
    fn what_two_readers_could_read_in_two_ways_is_refused() {
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
