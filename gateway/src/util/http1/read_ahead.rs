//! Bytes that the gateway has read from a connection, and not yet given to Pingora. For an idle connection the buffer
//! is empty and uses no memory.

use tokio::io::ReadBuf;

/// Buffer of bytes that were read but not yet given to the reader.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    bytes: Vec<u8>,
    /// Number of bytes at the start that have already been given to the reader.
    given: usize,
}

impl ReadAhead {
    /// Returns the bytes that have not been given to the reader.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.given..]
    }

    /// Returns true if the buffer holds no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends bytes to the buffer.
    pub(crate) fn keep(&mut self, more: &[u8]) {
        if more.is_empty() {
            return;
        }
        self.bytes.drain(..std::mem::take(&mut self.given));
        self.bytes.extend_from_slice(more);
    }

    /// Moves up to `most` bytes to `buf`, and returns the number of moved bytes.
    pub(crate) fn give(&mut self, most: usize, buf: &mut ReadBuf<'_>) -> usize {
        let part = most.min(buf.remaining()).min(self.bytes().len());
        buf.put_slice(&self.bytes()[..part]);
        self.given += part;
        if self.given == self.bytes.len() {
            self.clear();
        }
        part
    }

    /// Drops all bytes, and the buffer's memory.
    pub(crate) fn clear(&mut self) {
        *self = ReadAhead::default();
    }

    /// Removes and returns all remaining bytes.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.given));
        bytes
    }
}
