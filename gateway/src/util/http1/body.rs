//! The body of an HTTP/1 message as it passes: where it ends (RFC 9112 6.3).

use super::Fault;
use super::chunked::Chunked;

/// A body on its way.
#[derive(Debug)]
pub(crate) enum Body {
    /// A body of which so many bytes are still to come.
    Length(u64),
    /// A chunked body.
    Chunked(Chunked),
}

impl Body {
    /// Returns how many of the next `bytes` belong to the body, and whether it ends with them.
    ///
    /// # Errors
    /// What is wrong with the framing of a chunked body.
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
