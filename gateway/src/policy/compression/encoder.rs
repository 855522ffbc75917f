//! Compresses a body part by part. Where nobody knows how long it will be, each part is sent on whole: it may be all
//! that there is for a while.

use std::io::Write;

use brotli::CompressorWriter as Brotli;
use bytes::Bytes;
use flate2::write::GzEncoder as Gzip;
use parking_lot::Mutex;
use pingora::prelude::*;
use zstd::stream::write::Encoder as Zstd;

use crate::config::{Coding, CompressionLevel};

/// What Brotli may look back on, as a power of two: half a megabyte. More would be held for each response.
const BROTLI_WINDOW: u32 = 19;
/// What Brotli takes and gives at once, in bytes.
const BROTLI_BUFFER: usize = 4096;

/// Compresses one body.
pub struct Encoder {
    /// `None`: it has ended.
    stream: Option<Stream>,
    /// Whether what there is so far goes on at once.
    flushes: bool,
}

enum Stream {
    Gzip(Gzip<Vec<u8>>),
    Brotli(Box<Brotli<Vec<u8>>>),
    /// Never locked: a request's context may be looked at from any thread, and Zstandard's stream may not.
    Zstd(Box<Mutex<Zstd<'static, Vec<u8>>>>),
}

impl Encoder {
    /// Begins a body of `length` bytes, where that is known.
    ///
    /// # Errors
    /// Where Zstandard has no memory.
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
                // For a short body it takes less memory.
                zstd.set_pledged_src_size(length).or_err(InternalError, "beginning zstd")?;
                Stream::Zstd(Box::new(Mutex::new(zstd)))
            }
        };
        Ok(Encoder { stream: Some(stream), flushes: length.is_none() })
    }

    /// A part of the body passes by; `end`: the last one.
    ///
    /// # Errors
    /// Where the body is longer than was said.
    pub fn on_body(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let compressed =
            self.encode(body.as_deref().unwrap_or_default()).or_err(InternalError, "compressing")?;
        let rest = if end { self.end()? } else { None };
        let compressed = match rest {
            Some(rest) if compressed.is_empty() => rest,
            Some(rest) => [compressed, rest].concat(),
            None => compressed,
        };
        // An empty part would be the end, where parts have their length in front.
        *body = Some(Bytes::from(compressed)).filter(|part| !part.is_empty());
        Ok(())
    }

    /// The end of the body, unless it has been sent.
    ///
    /// # Errors
    /// Where the body is shorter than was said.
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

    /// What a client makes of it, which must be whole.
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
    fn what_is_compressed_is_whole_and_smaller() {
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
    fn an_empty_body_is_one_too() {
        for coding in CODINGS {
            let mut encoder = Encoder::new(coding, CompressionLevel::Fast, None).unwrap();
            let mut body = None;
            encoder.on_body(&mut body, true).unwrap();
            assert_eq!(decoded(coding, &body.unwrap()), b"");
        }
    }

    #[test]
    fn a_body_of_another_length_than_was_said_does_not_end_well() {
        let mut encoder = Encoder::new(Coding::Zstd, CompressionLevel::Fast, Some(10)).unwrap();
        encoder.on_body(&mut Some(Bytes::from_static(b"short")), false).unwrap();
        assert!(encoder.end().is_err());
    }
}
