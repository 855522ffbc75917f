//! HTTP/2 frames made by hand (RFC 9113 4.1), for bytes that no library would send, and to see exactly what
//! comes back.

use std::net::SocketAddr;

use testkit::DEADLINE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// An HTTP/2 frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { kind, flags, stream, payload: payload.into() }
    }

    /// Returns a RST_STREAM frame.
    pub(crate) fn reset(stream: u32, reason: u32) -> Frame {
        Frame::new(RST_STREAM, 0, stream, reason.to_be_bytes())
    }

    /// Returns the whole head of a request. If `end` is true, the request has no body.
    pub(crate) fn head(stream: u32, fields: &[(&str, &str)], end: bool) -> Frame {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        Frame::new(HEADERS, flags, stream, block(fields))
    }

    pub(crate) fn is_end(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = u32::try_from(self.payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Returns the status of a response's head, whose first field is `:status`: an entry of the static table
    /// (RFC 7541 A), or three digits in Huffman code.
    pub(crate) fn status(&self) -> u16 {
        match self.payload[..] {
            [0x88, ..] => 200,
            [0x89, ..] => 204,
            [0x8c, ..] => 400,
            [0x8d, ..] => 404,
            [0x8e, ..] => 500,
            [0x08 | 0x48, length, ref digits @ ..] if length > 0x80 => {
                huffman_digits(&digits[..usize::from(length & 0x7f)])
            }
            ref other => panic!("a status that this does not know: {other:?}"),
        }
    }

    /// Returns the error code of a RST_STREAM or GOAWAY frame.
    pub(crate) fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// Decodes a number of three Huffman-coded digits (RFC 7541 B). The digits 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits = bytes.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * bytes.len();
    (0..3).fold(0, |number, _| {
        let next = |count: usize| bits >> (left - count) & ((1 << count) - 1);
        let (digit, taken) = if next(5) <= 2 { (next(5), 5) } else { (next(6) - 0x19 + 3, 6) };
        left -= taken;
        number * 10 + u16::try_from(digit).unwrap()
    })
}

/// Returns the fields of a GET of `/` from `authority`.
pub(crate) fn get(authority: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/")]
}

/// Encodes a header block with literal fields and without compression (RFC 7541 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                block.push(u8::try_from(length).unwrap());
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push(u8::try_from(length % 128).unwrap() | 128);
                    length /= 128;
                }
                block.push(u8::try_from(length).unwrap());
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A connection on which the test writes and reads frames.
pub(crate) struct Wire(TcpStream);

impl Wire {
    /// Opens a connection and sends the preface and empty settings.
    pub(crate) async fn connect(address: SocketAddr) -> Wire {
        let mut wire = Wire(TcpStream::connect(address).await.unwrap());
        wire.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert!(wire.send(&[Frame::new(SETTINGS, 0, 0, [])]).await);
        wire
    }

    /// Accepts the connection of a client, whose preface is read here.
    pub(crate) async fn accept(mut stream: TcpStream) -> Wire {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut wire = Wire(stream);
        assert!(wire.send(&[Frame::new(SETTINGS, 0, 0, [])]).await);
        wire
    }

    /// Writes frames. Returns true if the connection accepted them.
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> bool {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        matches!(timeout(DEADLINE, self.0.write_all(&bytes)).await, Ok(Ok(())))
    }

    /// Returns the next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let reading = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
            Some(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        let next = timeout(DEADLINE, reading).await;
        next.unwrap_or_else(|_| panic!("no frame, and the connection does not end"))
    }

    /// Returns the next frame for which `is_it` is true; `None` if the connection ends first.
    pub(crate) async fn find(&mut self, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if is_it(&frame) {
                return Some(frame);
            }
        }
    }

    /// Returns the status of the response on a stream. Fails if no response arrives.
    pub(crate) async fn status(&mut self, stream: u32) -> u16 {
        let head =
            self.find(|frame| frame.stream == stream && [HEADERS, RST_STREAM].contains(&frame.kind)).await;
        let head = head.unwrap_or_else(|| panic!("the connection ended before stream {stream} was answered"));
        assert_eq!(head.kind, HEADERS, "stream {stream} was reset: {}", head.reason());
        head.status()
    }

    /// Reads until the connection ends. Returns the error code of the last GOAWAY, if there was one.
    pub(crate) async fn ended(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                reason = Some(frame.reason());
            }
        }
        reason
    }
}
