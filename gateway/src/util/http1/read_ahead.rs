//! Bytes that have been read from a connection and are not for Pingora yet. An idle connection holds none, and no memory for them.

use tokio::io::ReadBuf;

/// Bytes in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    bytes: Vec<u8>,
    /// How many of them have been given.
    given: usize,
}

impl ReadAhead {
    /// Those that have not been given.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.given..]
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Holds these too.
    pub(crate) fn keep(&mut self, more: &[u8]) {
        if more.is_empty() {
            return;
        }
        self.bytes.drain(..std::mem::take(&mut self.given));
        self.bytes.extend_from_slice(more);
    }

    /// Gives the first ones, at most so many; how many.
    pub(crate) fn give(&mut self, most: usize, buf: &mut ReadBuf<'_>) -> usize {
        let part = most.min(buf.remaining()).min(self.bytes().len());
        buf.put_slice(&self.bytes()[..part]);
        self.given += part;
        if self.given == self.bytes.len() {
            self.clear();
        }
        part
    }

    /// Drops them.
    pub(crate) fn clear(&mut self) {
        *self = ReadAhead::default();
    }

    /// All of them, for somebody else.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.given));
        bytes
    }
}
