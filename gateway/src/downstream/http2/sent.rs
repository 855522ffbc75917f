//! Frames that h2 has written. They show the [`Ledger`] which streams are answered and which streams h2 has reset, and
//! show the connection whether an error has ended it.

use super::frame::{FramePart, FrameReader, GOAWAY, RST_STREAM};
use super::ledger::Ledger;

/// Reader of the frames that h2 writes on a connection.
#[derive(Debug)]
pub(super) struct Sent {
    frames: FrameReader,
    /// Payload of a RST_STREAM or GOAWAY frame, as far as it has been written; at most its first eight bytes.
    payload: u64,
    length: usize,
    has_ended_in_error: bool,
}

impl Sent {
    pub(super) fn new() -> Self {
        Sent { frames: FrameReader::new(0), payload: 0, length: 0, has_ended_in_error: false }
    }

    /// Returns true if h2 has sent a GOAWAY with an error code.
    pub(super) fn has_ended_in_error(&self) -> bool {
        self.has_ended_in_error
    }

    /// Inspects bytes that h2 has written.
    pub(super) fn on_write(&mut self, mut bytes: &[u8], ledger: &mut Ledger) {
        while let Some(part) = self.frames.next(&mut bytes) {
            match part {
                FramePart::Begins(frame) => {
                    (self.payload, self.length) = (0, 0);
                    ledger.on_sent(frame);
                }
                FramePart::Payload(payload) => self.on_payload(payload, ledger),
            }
        }
    }

    fn on_payload(&mut self, payload: &[u8], ledger: &mut Ledger) {
        let frame = self.frames.frame();
        if !matches!(frame.kind, RST_STREAM | GOAWAY) {
            return;
        }
        for byte in payload.iter().take(8 - self.length) {
            self.payload = self.payload << 8 | u64::from(*byte);
            self.length += 1;
        }
        let [.., a, b, c, d] = self.payload.to_be_bytes();
        let code = u32::from_be_bytes([a, b, c, d]);
        match (frame.kind, self.length) {
            (RST_STREAM, 4) => ledger.on_sent_reset(frame.stream, code.into()),
            (GOAWAY, 8) => self.has_ended_in_error |= code != 0,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::downstream::http2::frame::FrameHead;
    use crate::downstream::http2::ledger::{FAULTS, Verdict};
    use crate::downstream::http2::streams::OpenStreams;

    #[test]
    fn resets_and_goaway_are_seen_in_chunks_of_any_size() {
        let frame = |kind, stream, payload: &[u8]| {
            [&FrameHead { length: payload.len(), kind, flags: 0, stream }.bytes()[..], payload].concat()
        };
        for at_once in [1, 3, 1000] {
            let verdict = Arc::<Verdict>::default();
            let (mut ledger, mut sent) = (Ledger::new(verdict.clone(), OpenStreams::alone()), Sent::new());
            let mut stream = 1;
            while !verdict.is_set() {
                ledger.on_head(stream);
                let all = [frame(4, 0, &[0; 12]), frame(RST_STREAM, stream, &[0, 0, 0, 1])].concat();
                all.chunks(at_once).for_each(|bytes| sent.on_write(bytes, &mut ledger));
                stream += 2;
                assert!(stream < 10_000, "none was seen");
            }
            assert!(stream > 2 * FAULTS.most, "more were seen than there were");
            for (code, is_error) in [(0, false), (11, true)] {
                let goaway = frame(GOAWAY, 0, &[[0, 0, 0, 9, 0, 0, 0, code].as_slice(), b"why"].concat());
                goaway.chunks(at_once).for_each(|bytes| sent.on_write(bytes, &mut ledger));
                assert_eq!(sent.has_ended_in_error(), is_error);
            }
        }
    }
}
