//! Where heads are on a connection of HTTP/2, frame by frame (RFC 9113 4.1 and 6.10). h2 reads them and knows all else;
//! but it waits for the rest of a head for ever, and one can be stretched over any number of frames.

use super::HeadTerms;
use super::deadline::Deadline;

/// Of a frame, before what is in it: its length, type, flags and stream.
const FRAME_HEAD: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Has the heads on a connection come in time.
#[derive(Debug)]
pub(super) struct Http2 {
    heads: Heads,
    terms: HeadTerms,
    /// Whether the deadline is that of a head.
    is_timed: bool,
}

impl Http2 {
    /// Has them come within the time of these terms, behind a preface of this length.
    pub(super) fn new(terms: HeadTerms, preface: usize) -> Self {
        Http2 { heads: Heads::behind(preface), terms, is_timed: false }
    }

    /// These bytes have come; `deadline` is that of the next ones, where it is free.
    pub(super) fn came(&mut self, bytes: &[u8], deadline: Option<&Deadline>) {
        let has_ended = self.heads.pass(bytes);
        let Some(deadline) = deadline else { return };
        if self.is_timed && (has_ended || !self.heads.is_within) {
            self.is_timed = false;
            deadline.lift();
        }
        if self.heads.is_within && !self.is_timed {
            self.is_timed = true;
            deadline.set(self.terms.now().time);
        }
    }
}

/// Follows the heads on a connection.
#[derive(Debug)]
struct Heads {
    /// So many bytes of a frame, or of the preface, are still to come.
    left: usize,
    /// The head of the next frame, as far as it has come.
    frame: [u8; FRAME_HEAD],
    has: usize,
    /// Whether the frame that is coming is part of a head, and whether it is the last part.
    is_part: bool,
    is_last: bool,
    /// Whether a head has begun, and has not ended.
    is_within: bool,
}

impl Heads {
    /// Those behind a preface of this length.
    fn behind(preface: usize) -> Self {
        Heads {
            left: preface,
            frame: [0; FRAME_HEAD],
            has: 0,
            is_part: false,
            is_last: false,
            is_within: false,
        }
    }

    /// These bytes have come. Whether a head has ended among them.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_ended = false;
        while !bytes.is_empty() {
            if self.left == 0 {
                let part = (FRAME_HEAD - self.has).min(bytes.len());
                self.frame[self.has..self.has + part].copy_from_slice(&bytes[..part]);
                self.has += part;
                bytes = &bytes[part..];
                if self.has < FRAME_HEAD {
                    break;
                }
                self.begin_frame();
            }
            let part = self.left.min(bytes.len());
            self.left -= part;
            bytes = &bytes[part..];
            if self.left == 0 && self.is_part && self.is_last {
                (self.is_part, self.is_within) = (false, false);
                has_ended = true;
            }
        }
        has_ended
    }

    fn begin_frame(&mut self) {
        self.has = 0;
        let [high, middle, low, kind, flags, ..] = self.frame;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.is_part = matches!(kind, HEADERS | CONTINUATION);
        self.is_last = flags & END_HEADERS != 0;
        self.is_within |= self.is_part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_head_lasts_from_its_first_frame_to_the_end_of_its_last() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let settings = frame(4, 0, &[0; 6]);
        let data = frame(0, 1, &[HEADERS; 30]);
        let whole = frame(HEADERS, END_HEADERS, b"abc");
        let begun = frame(HEADERS, 1, b"abc");
        let more = frame(CONTINUATION, 0, b"");
        let last = frame(CONTINUATION, END_HEADERS, b"de");
        let empty_last = frame(CONTINUATION, END_HEADERS, b"");
        for (frames, heads, is_within) in [
            (&[&settings, &data][..], 0, false),
            (&[&settings, &whole], 1, false),
            (&[&whole, &data, &whole], 2, false),
            (&[&settings, &begun], 0, true),
            (&[&begun, &more, &more], 0, true),
            (&[&begun, &more, &last, &data], 1, false),
            (&[&begun, &empty_last], 1, false),
            (&[&begun, &last, &begun], 1, true),
        ] {
            let all: Vec<u8> = frames.iter().fold(preface.clone(), |all, frame| [&all[..], frame].concat());
            for at_once in [1, 5, all.len()] {
                let mut found = Heads::behind(preface.len());
                let ended = all.chunks(at_once).filter(|bytes| found.pass(bytes)).count();
                let expected = if at_once == all.len() { heads.min(1) } else { heads };
                assert_eq!((ended, found.is_within), (expected, is_within), "{frames:?} by {at_once}");
            }
        }
        // What has begun is on its way, also within a frame.
        let mut found = Heads::behind(0);
        assert!(!found.pass(&whole[..10]) && found.is_within);
    }
}
