//! Strict check of a chunked body during its transfer (RFC 9112 7.1), for requests and responses. The check finds the
//! end of the body, and refuses a body for which another parser could find another end. No data is copied.
//!
//! Pingora parses the body again afterwards, more leniently. For a body that passes this check, Pingora's result is
//! the same.

use super::Fault;
use super::bytes::{is_token_byte, is_value_byte};

/// Maximum number of digits in a chunk's size.
const SIZE_DIGITS: u8 = 16;

/// Maximum total size of the extensions in a body, in bytes. RFC 9112 7.1.1 requires a limit.
const EXTENSION_BYTES: usize = 16 * 1024;

/// Maximum total size of the trailers of a body, in bytes.
const TRAILER_BYTES: usize = 8 * 1024;

/// Maximum number of trailer fields of a body.
const TRAILER_FIELDS: usize = 32;

/// Fields that must not be trailers (RFC 9110 6.5.1). They concern framing, routing or authentication, and a
/// recipient does not look for them after the body.
const NOT_IN_TRAILERS: [&[u8]; 9] = [
    b"transfer-encoding",
    b"content-length",
    b"host",
    b"trailer",
    b"connection",
    b"authorization",
    b"content-encoding",
    b"content-type",
    b"te",
];

/// Length of the longest name in [`NOT_IN_TRAILERS`].
const LONGEST_NAME: usize = 17;

/// Incremental parser of one chunked body.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: ChunkState,
    /// Number of remaining bytes of the chunk; while the chunk's size is read, the value so far.
    size: u64,
    digits: u8,
    extensions: usize,
    trailers: usize,
    fields: usize,
    /// First bytes of the name of a trailer, in lower case.
    name: [u8; LONGEST_NAME],
    name_length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size,
    /// After a semicolon: the name of an extension begins.
    ExtensionName,
    ExtensionNameMore,
    ExtensionValue,
    ExtensionValueMore,
    Quoted,
    QuotedPair,
    QuotedEnd,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    Line,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
}

impl Default for Chunked {
    fn default() -> Self {
        Chunked {
            state: ChunkState::Size,
            size: 0,
            digits: 0,
            extensions: 0,
            trailers: 0,
            fields: 0,
            name: [0; LONGEST_NAME],
            name_length: 0,
        }
    }
}

impl Chunked {
    /// Parses the next bytes of the body. If the body ends in `bytes`, returns how many of them are part of the body;
    /// otherwise `None`.
    ///
    /// # Errors
    /// Returns an error if the body is malformed. The parser must not be used afterwards.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        while at < bytes.len() {
            if self.state == ChunkState::Data {
                let there = (bytes.len() - at) as u64;
                let passed = self.size.min(there);
                self.size -= passed;
                at += passed as usize;
                if self.size > 0 {
                    break;
                }
                self.state = ChunkState::DataCr;
                continue;
            }
            let byte = bytes[at];
            at += 1;
            if self.state == ChunkState::LastLf {
                return if byte == b'\n' { Ok(Some(at)) } else { Err(BARE_CR) };
            }
            self.state = self.next(byte)?;
        }
        Ok(None)
    }

    fn next(&mut self, byte: u8) -> Result<ChunkState, Fault> {
        match self.state {
            ChunkState::Size => self.size_byte(byte),
            ChunkState::SizeEnd => {
                self.digits = 0;
                match byte {
                    b'\n' if self.size == 0 => Ok(ChunkState::Line),
                    b'\n' => Ok(ChunkState::Data),
                    _ => Err(BARE_CR),
                }
            }
            ChunkState::DataCr if byte == b'\r' => Ok(ChunkState::DataLf),
            ChunkState::DataLf if byte == b'\n' => Ok(ChunkState::Size),
            ChunkState::DataCr | ChunkState::DataLf => {
                Err("a chunk does not have the length that it declares")
            }
            ChunkState::Line | ChunkState::TrailerName | ChunkState::TrailerValue | ChunkState::TrailerLf => {
                self.trailer_byte(byte)
            }
            _ => self.extension_byte(byte),
        }
    }

    fn size_byte(&mut self, byte: u8) -> Result<ChunkState, Fault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => return Ok(ChunkState::SizeEnd),
            b';' if self.digits > 0 => return Ok(ChunkState::ExtensionName),
            _ => return Err("the size of a chunk is not a hexadecimal number"),
        };
        self.digits += 1;
        self.size = if self.digits == 1 { u64::from(digit) } else { self.size << 4 | u64::from(digit) };
        if self.digits > SIZE_DIGITS || self.size > i64::MAX as u64 {
            return Err("the size of a chunk is too large");
        }
        Ok(ChunkState::Size)
    }

    /// Parses a byte of `;name`, `;name=token` or `;name="anything"`. White space is refused around a name or a value
    /// (RFC 9112 7.1.1 calls it bad).
    fn extension_byte(&mut self, byte: u8) -> Result<ChunkState, Fault> {
        self.extensions += 1;
        if self.extensions > EXTENSION_BYTES {
            return Err("the chunks have too many extensions");
        }
        match (self.state, byte) {
            (ChunkState::ExtensionName | ChunkState::ExtensionNameMore, _) if is_token_byte(byte) => {
                Ok(ChunkState::ExtensionNameMore)
            }
            (ChunkState::ExtensionValue | ChunkState::ExtensionValueMore, _) if is_token_byte(byte) => {
                Ok(ChunkState::ExtensionValueMore)
            }
            (ChunkState::ExtensionNameMore, b'=') => Ok(ChunkState::ExtensionValue),
            (ChunkState::ExtensionValue, b'"') => Ok(ChunkState::Quoted),
            (ChunkState::Quoted, b'"') => Ok(ChunkState::QuotedEnd),
            (ChunkState::Quoted, b'\\') => Ok(ChunkState::QuotedPair),
            (ChunkState::Quoted | ChunkState::QuotedPair, _) if is_value_byte(byte) => Ok(ChunkState::Quoted),
            (
                ChunkState::ExtensionNameMore | ChunkState::ExtensionValueMore | ChunkState::QuotedEnd,
                b';',
            ) => Ok(ChunkState::ExtensionName),
            (
                ChunkState::ExtensionNameMore | ChunkState::ExtensionValueMore | ChunkState::QuotedEnd,
                b'\r',
            ) => Ok(ChunkState::SizeEnd),
            _ => Err("the extension of a chunk is malformed"),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<ChunkState, Fault> {
        self.trailers += 1;
        if self.trailers > TRAILER_BYTES {
            return Err("the trailers are too large");
        }
        match (self.state, byte) {
            (ChunkState::Line, b'\r') => Ok(ChunkState::LastLf),
            (ChunkState::Line, _) if is_token_byte(byte) => {
                self.fields += 1;
                if self.fields > TRAILER_FIELDS {
                    return Err("there are too many trailers");
                }
                self.name_length = 0;
                self.note_name(byte);
                Ok(ChunkState::TrailerName)
            }
            (ChunkState::TrailerName, b':') if self.is_forbidden() => {
                Err("the trailers contain a field that is allowed only in the header")
            }
            (ChunkState::TrailerName, b':') => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerName, _) if is_token_byte(byte) => {
                self.note_name(byte);
                Ok(ChunkState::TrailerName)
            }
            (ChunkState::TrailerValue, b'\r') => Ok(ChunkState::TrailerLf),
            (ChunkState::TrailerValue, _) if is_value_byte(byte) => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerLf, b'\n') => Ok(ChunkState::Line),
            (ChunkState::TrailerLf, _) => Err(BARE_CR),
            _ => Err("the trailers are malformed"),
        }
    }

    fn note_name(&mut self, byte: u8) {
        if let Some(slot) = self.name.get_mut(self.name_length) {
            *slot = byte.to_ascii_lowercase();
        }
        self.name_length += 1;
    }

    fn is_forbidden(&self) -> bool {
        self.name.get(..self.name_length).is_some_and(|name| NOT_IN_TRAILERS.contains(&name))
    }
}

const BARE_CR: &str = "the framing of the body has a carriage return without a line feed";

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the end of a body that arrives in pieces of `size`; `None` if it does not end.
    fn in_pieces(bytes: &[u8], size: usize) -> Result<Option<usize>, Fault> {
        let mut body = Chunked::default();
        for (i, piece) in bytes.chunks(size).enumerate() {
            if let Some(end) = body.read(piece)? {
                return Ok(Some(i * size + end));
            }
        }
        Ok(None)
    }

    #[test]
    fn body_end_is_independent_of_piece_size() {
        for (body, expected) in [
            (&b"0\r\n\r\n"[..], Ok(Some(5))),
            (b"0\r\n\r\nGET", Ok(Some(5))),
            (b"5\r\nhello\r\n0\r\n\r\n0\r\n\r\n", Ok(Some(15))),
            (b"A;a=b;c=\"d\\\"\"\r\n0123456789\r\n00;x\r\nA:b\r\nB:\r\n\r\n\n", Ok(Some(44))),
            (b"5\r\nhello\r\n0\r\n", Ok(None)),
            (b"5\r\nhel", Ok(None)),
            (b"5\r\nhello0", Err(())),
            (b"5\r\nhello\rx", Err(())),
            (b"5\nhello", Err(())),
            (b"5\r\r\n", Err(())),
            (b" 5", Err(())),
            (b"5 ", Err(())),
            (b"\r\n", Err(())),
            (b"0x", Err(())),
            (b"00000000000000005", Err(())),
            (b"8000000000000000", Err(())),
            (b"5;\r\n", Err(())),
            (b"5;a\n", Err(())),
            (b"5;a=\"\x01", Err(())),
            (b"0\r\n\n", Err(())),
            (b"0\r\n:\r\n\r\n", Err(())),
            (b"0\r\na\r\n\r\n", Err(())),
            (b"0\r\na :b\r\n\r\n", Err(())),
            (b"0\r\n a:b\r\n\r\n", Err(())),
            (b"0\r\na:b\n\r\n", Err(())),
            (b"0\r\nCONTENT-length:5\r\n\r\n", Err(())),
            (b"0\r\nhost:a\r\n\r\n", Err(())),
            (b"0\r\nhosts:a\r\n\r\n", Ok(Some(14))),
        ] {
            for size in 1..=body.len() {
                let text = String::from_utf8_lossy(body);
                let found = in_pieces(body, size).map_err(|_| ());
                assert_eq!(found, expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(1000));
        assert!(in_pieces(chunk.repeat(16).as_bytes(), 100).is_ok());
        assert!(in_pieces(chunk.repeat(17).as_bytes(), 100).is_err());
        let trailers = |count: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(in_pieces(trailers(TRAILER_FIELDS).as_bytes(), 7).is_ok());
        assert!(in_pieces(trailers(TRAILER_FIELDS + 1).as_bytes(), 7).is_err());
        assert!(in_pieces(format!("0\r\nA: {}", "x".repeat(TRAILER_BYTES)).as_bytes(), 7).is_err());
    }
}
