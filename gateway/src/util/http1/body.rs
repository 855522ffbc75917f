//! Framing of an HTTP/1 body during its transfer: finds the end of the body (RFC 9112 6.3).

use super::Fault;
use super::chunked::Chunked;

/// State of a body that is being transferred.
#[derive(Debug)]
pub(crate) enum Body {
    /// A body with this number of remaining bytes.
    Length(u64),
    /// A chunked body.
    Chunked(Chunked),
}

impl Body {
    /// Returns how many of the next `bytes` are part of the body, and true if the body ends with them.
    ///
    /// # Errors
    /// Returns an error if the framing of a chunked body is malformed.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Result<(usize, bool), Fault> {
        match self {
            Body::Length(left) => {
                let passed = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= passed as u64;
                Ok((passed, *left == 0))
            }
            Body::Chunked(chunked) => {
                let end = chunked.read(bytes)?;
                Ok((end.unwrap_or(bytes.len()), end.is_some()))
            }
        }
    }
}
