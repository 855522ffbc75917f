//! Frames of HTTP/2 (RFC 9113 4.1 and 6): the head of a frame, and a reader that finds frames in a stream of bytes.

/// Size of a frame head in bytes.
pub(super) const HEAD: usize = 9;

/// Maximum size of a frame payload: the value that applies without a setting (RFC 9113 6.5.2).
pub(super) const MAX_PAYLOAD: usize = 16 * 1024;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// Head of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    pub(super) fn parse(bytes: [u8; HEAD]) -> Self {
        let [high, middle, low, kind, flags, a, b, c, d] = bytes;
        FrameHead {
            length: usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low),
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes([a & 0x7f, b, c, d]),
        }
    }

    pub(super) fn bytes(self) -> [u8; HEAD] {
        let [.., high, middle, low] = self.length.to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [high, middle, low, self.kind, self.flags, a, b, c, d]
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Reader that splits bytes into frame heads and payloads. The bytes may arrive in chunks of any size.
#[derive(Debug)]
pub(super) struct FrameReader {
    head: [u8; HEAD],
    has: usize,
    /// Number of bytes of the current payload, or of the preface, that have not arrived.
    left: usize,
    frame: FrameHead,
}

/// Result of [`FrameReader::next`].
pub(super) enum FramePart<'b> {
    /// Head of a frame that begins.
    Begins(FrameHead),
    /// Part of the payload of the current frame, or of the preface.
    Payload(&'b [u8]),
}

impl FrameReader {
    /// Creates a reader of the frames after a preface of `preface` bytes.
    pub(super) fn new(preface: usize) -> Self {
        FrameReader { head: [0; HEAD], has: 0, left: preface, frame: FrameHead::default() }
    }

    /// Returns the head of the current frame.
    pub(super) fn frame(&self) -> FrameHead {
        self.frame
    }

    /// Returns true if the current frame is complete.
    pub(super) fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// Removes the next part from the front of `bytes` and returns it; `None` if more bytes are needed.
    pub(super) fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<FramePart<'b>> {
        if bytes.is_empty() {
            return None;
        }
        if self.left > 0 {
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= payload.len();
            *bytes = rest;
            return Some(FramePart::Payload(payload));
        }
        let (part, rest) = bytes.split_at((HEAD - self.has).min(bytes.len()));
        self.head[self.has..self.has + part.len()].copy_from_slice(part);
        self.has += part.len();
        *bytes = rest;
        if self.has < HEAD {
            return None;
        }
        self.has = 0;
        self.frame = FrameHead::parse(self.head);
        self.left = self.frame.length;
        Some(FramePart::Begins(self.frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_chunks_of_any_size() {
        let head = FrameHead { length: 5, kind: HEADERS, flags: END_HEADERS, stream: 0x7fff_0001 };
        let empty = FrameHead { length: 0, kind: DATA, flags: END_STREAM, stream: 3 };
        let all = [b"PRI", &head.bytes()[..], b"hello", &empty.bytes()].concat();
        for at_once in [1, 4, all.len()] {
            let mut reader = FrameReader::new(3);
            let (mut heads, mut payload) = (Vec::new(), Vec::new());
            for mut bytes in all.chunks(at_once) {
                while let Some(part) = reader.next(&mut bytes) {
                    match part {
                        FramePart::Begins(frame) => heads.push(frame),
                        FramePart::Payload(part) => payload.extend_from_slice(part),
                    }
                }
            }
            assert_eq!((heads, &payload[..]), (vec![head, empty], &b"PRIhello"[..]), "{at_once}");
            assert!(reader.is_at_end());
        }
    }
}
