//! Boundaries of the frames that a backend sends (RFC 6455 5.2). The gateway must know the boundaries to put its own
//! Close between two frames. The gateway changes no frame, and keeps only the head of one frame.

/// Close frame with Going Away (RFC 6455 7.4.1), without a mask: FIN and opcode 8, length 2, code 1001.
pub const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];

/// Opcode of a Close frame.
const CLOSE: u8 = 8;

/// Maximum length of a frame head without a mask.
const LONGEST_HEAD: usize = 10;

/// Position in the sequence of frames that a backend sends.
#[derive(Debug, Default)]
pub struct Frames {
    head: [u8; LONGEST_HEAD],
    /// Number of bytes of the head that have arrived.
    length: usize,
    /// Number of bytes of the current payload that have not arrived yet.
    payload: u64,
    /// True after a Close, which no frame may follow.
    closing: bool,
    /// True after a masked frame, which a server may not send. Later boundaries are then not known.
    lost: bool,
}

impl Frames {
    /// Follows the next bytes of the sequence.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            if self.payload > 0 {
                let skipped = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.length] = bytes[0];
            self.length += 1;
            bytes = &bytes[1..];
            if self.length == 2 {
                self.begin();
            }
            if self.length >= 2 && self.length == self.head_length() {
                self.end_of_head();
            }
        }
    }

    /// Returns true if a frame may begin here: the previous frame is complete and valid, and was no Close.
    pub fn is_between(&self) -> bool {
        self.length == 0 && self.payload == 0 && !self.closing && !self.lost
    }

    fn begin(&mut self) {
        let is_masked = self.head[1] & 0x80 != 0;
        self.lost = is_masked;
        self.closing |= self.head[0] & 0x0F == CLOSE;
    }

    fn head_length(&self) -> usize {
        match self.head[1] & 0x7F {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn end_of_head(&mut self) {
        let extended = &self.head[2..self.length];
        self.payload = match extended.len() {
            0 => u64::from(self.head[1] & 0x7F),
            _ => extended.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match length {
            0..=125 => frame.push(length as u8),
            126..=0xFFFF => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // The payload bytes could be taken for heads.
        frame.extend(std::iter::repeat_n(0x88, length));
        frame
    }

    #[test]
    fn boundaries_are_found_in_chunks_of_any_size() {
        for pieces in [1, 2, 3, 7, 100_000] {
            let mut frames = Frames::default();
            for length in [0, 1, 125, 126, 0xFFFF, 0x1_0000] {
                let frame = frame(2, length);
                let mut followed = 0;
                for piece in frame.chunks(pieces) {
                    assert_eq!(frames.is_between(), followed == 0, "{length}, in pieces of {pieces}");
                    frames.follow(piece);
                    followed += piece.len();
                }
                assert!(frames.is_between(), "{length}, in pieces of {pieces}");
            }
        }
    }

    #[test]
    fn no_frame_follows_a_close_or_a_masked_frame() {
        let mut frames = Frames::default();
        frames.follow(&frame(CLOSE, 2));
        assert!(!frames.is_between());
        let mut frames = Frames::default();
        frames.follow(&[0x81, 0x80, 0, 0, 0, 0]);
        assert!(!frames.is_between(), "a masked one");
        let mut frames = Frames::default();
        frames.follow(&GOING_AWAY);
        assert!(!frames.is_between(), "it is a Close");
    }
}
