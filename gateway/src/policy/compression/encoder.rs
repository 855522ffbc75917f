//! Compresses a body part by part. If the length of the body is not known, each compressed part is flushed and
//! sent at once, because the next part may come much later.

use std::io::Write;

use brotli::CompressorWriter as Brotli;
use bytes::Bytes;
use flate2::write::GzEncoder as Gzip;
use parking_lot::Mutex;
use pingora::prelude::*;
use zstd::stream::write::Encoder as Zstd;

use crate::config::{Coding, CompressionLevel};

/// Window of Brotli, as a power of two: half a megabyte. Each response needs memory for a whole window.
const BROTLI_WINDOW: u32 = 19;
/// Size of Brotli's buffer, in bytes.
const BROTLI_BUFFER: usize = 4096;

/// Encoder of one body.
pub struct Encoder {
    /// Compressing stream; `None` after its end.
    stream: Option<Stream>,
    /// True if each part is flushed and sent at once; false if the encoder may collect data.
    flushes: bool,
}

enum Stream {
    Gzip(Gzip<Vec<u8>>),
    Brotli(Box<Brotli<Vec<u8>>>),
    /// The mutex is never locked. It makes the stream `Sync`, which a request's context must be and Zstandard's
    /// stream alone is not.
    Zstd(Box<Mutex<Zstd<'static, Vec<u8>>>>),
}

impl Encoder {
    /// Creates an encoder for a body of `length` bytes, or of unknown length (`None`).
    ///
    /// # Errors
    /// Returns an error if Zstandard cannot allocate memory.
    pub(super) fn new(coding: Coding, level: CompressionLevel, length: Option<u64>) -> Result<Self> {
        let pick = |fast, balanced, small| match level {
            CompressionLevel::Fast => fast,
            CompressionLevel::Balanced => balanced,
            CompressionLevel::Small => small,
        };
        let stream = match coding {
            Coding::Gzip => Stream::Gzip(Gzip::new(Vec::new(), flate2::Compression::new(pick(1, 5, 9)))),
            Coding::Br => {
                let quality = pick(1, 4, 6);
                Stream::Brotli(Box::new(Brotli::new(Vec::new(), BROTLI_BUFFER, quality, BROTLI_WINDOW)))
            }
            Coding::Zstd => {
                let mut zstd =
                    Zstd::new(Vec::new(), pick(1, 3, 9) as i32).or_err(InternalError, "beginning zstd")?;
                // Zstandard uses less memory for a short body of known length.
                zstd.set_pledged_src_size(length).or_err(InternalError, "beginning zstd")?;
                Stream::Zstd(Box::new(Mutex::new(zstd)))
            }
        };
        Ok(Encoder { stream: Some(stream), flushes: length.is_none() })
    }

    /// Replaces a part of the body by the compressed data that is ready. `end` is true for the last part.
    ///
    /// # Errors
    /// Returns an error if the body is longer than announced.
    pub fn on_body(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let compressed =
            self.encode(body.as_deref().unwrap_or_default()).or_err(InternalError, "compressing")?;
        let rest = if end { self.end()? } else { None };
        let compressed = match rest {
            Some(rest) if compressed.is_empty() => rest,
            Some(rest) => [compressed, rest].concat(),
            None => compressed,
        };
        // With chunked transfer coding an empty part would end the body.
        *body = Some(Bytes::from(compressed)).filter(|part| !part.is_empty());
        Ok(())
    }

    /// Returns the end of the compressed body, or `None` if it has been returned before.
    ///
    /// # Errors
    /// Returns an error if the body is shorter than announced.
    pub fn end(&mut self) -> Result<Option<Vec<u8>>> {
        let ended = match self.stream.take() {
            None => return Ok(None),
            Some(Stream::Gzip(gzip)) => gzip.finish(),
            Some(Stream::Brotli(brotli)) => Ok(brotli.into_inner()),
            Some(Stream::Zstd(zstd)) => zstd.into_inner().finish(),
        };
        ended.map(Some).or_err(InternalError, "ending what was compressed")
    }

    fn encode(&mut self, part: &[u8]) -> std::io::Result<Vec<u8>> {
        let flushes = self.flushes;
        let write = |stream: &mut dyn Write| {
            stream.write_all(part)?;
            if flushes && !part.is_empty() { stream.flush() } else { Ok(()) }
        };
        let out = match &mut self.stream {
            None => return Ok(Vec::new()),
            Some(Stream::Gzip(gzip)) => {
                write(gzip)?;
                gzip.get_mut()
            }
            Some(Stream::Brotli(brotli)) => {
                write(brotli)?;
                brotli.get_mut()
            }
            Some(Stream::Zstd(zstd)) => {
                let zstd = zstd.get_mut();
                write(zstd)?;
                zstd.get_mut()
            }
        };
        Ok(std::mem::take(out))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Returns the decoded body. Panics if the compressed form is incomplete.
    fn decoded(coding: Coding, compressed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(compressed).read_to_end(&mut plain).unwrap(),
            Coding::Br => brotli::Decompressor::new(compressed, 4096).read_to_end(&mut plain).unwrap(),
            Coding::Zstd => zstd::Decoder::new(compressed).unwrap().read_to_end(&mut plain).unwrap(),
        };
        plain
    }

    const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    fn compressed(encoder: &mut Encoder, part: &[u8], end: bool) -> Vec<u8> {
        let mut body = Some(Bytes::copy_from_slice(part));
        encoder.on_body(&mut body, end).unwrap();
        body.map(Vec::from).unwrap_or_default()
    }

    #[test]
    fn compressed_body_is_complete_and_smaller() {
        let text = "It was the best of times, it was the worst of times. ".repeat(2000);
        for coding in CODINGS {
            for level in [CompressionLevel::Fast, CompressionLevel::Balanced, CompressionLevel::Small] {
                let mut encoder = Encoder::new(coding, level, Some(text.len() as u64)).unwrap();
                let parts: Vec<u8> = text
                    .as_bytes()
                    .chunks(10_000)
                    .flat_map(|part| compressed(&mut encoder, part, false))
                    .collect();
                let all = [parts, compressed(&mut encoder, b"", true)].concat();
                assert!(all.len() < text.len() / 20, "{coding:?} {level:?}: {}", all.len());
                assert_eq!(decoded(coding, &all), text.as_bytes(), "{coding:?} {level:?}");
                assert!(encoder.end().unwrap().is_none(), "it has ended");
            }
        }
    }

    #[test]
    fn a_part_of_unknown_length_is_sent_on_at_once() {
        for coding in CODINGS {
            let mut encoder = Encoder::new(coding, CompressionLevel::Balanced, None).unwrap();
            let mut first = compressed(&mut encoder, b"first,", false);
            let mut plain = [0; 6];
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&*first).read_exact(&mut plain),
                Coding::Br => brotli::Decompressor::new(&*first, 4096).read_exact(&mut plain),
                Coding::Zstd => zstd::Decoder::new(&*first).unwrap().read_exact(&mut plain),
            }
            .unwrap();
            assert_eq!(&plain, b"first,", "{coding:?}");
            first.extend(compressed(&mut encoder, b"last", true));
            assert_eq!(decoded(coding, &first), b"first,last", "{coding:?}");
        }
    }

    #[test]
    fn empty_body_is_encoded() {
        for coding in CODINGS {
            let mut encoder = Encoder::new(coding, CompressionLevel::Fast, None).unwrap();
            let mut body = None;
            encoder.on_body(&mut body, true).unwrap();
            assert_eq!(decoded(coding, &body.unwrap()), b"");
        }
    }

    #[test]
    fn body_shorter_than_announced_is_an_error() {
        let mut encoder = Encoder::new(Coding::Zstd, CompressionLevel::Fast, Some(10)).unwrap();
        encoder.on_body(&mut Some(Bytes::from_static(b"short")), false).unwrap();
        assert!(encoder.end().is_err());
    }
}
