//! A backend's answer to a request for a WebSocket, as far as it must be understood here: where the head of a 101
//! ends, behind which no byte is HTTP.

use tokio::io::ReadBuf;

/// The backend's answer, of which it must be known where the head of a 101 ends.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Read, and not given to Pingora.
    pub(super) seen: Vec<u8>,
    /// How much of that may be given to it.
    given: usize,
    part: Part,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// A head; of 1xx there may be several.
    #[default]
    Head,
    /// A 101 has come, and with it the end of HTTP.
    Switched,
    /// Some other answer, which is none of our business.
    Other,
}

/// Larger than any head that Pingora takes.
const LONGEST_HEAD: usize = 1 << 20;

impl Answer {
    pub(super) fn has_switched(&self) -> bool {
        self.part == Part::Switched
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.seen.extend_from_slice(bytes);
        while self.part == Part::Head && self.given < self.seen.len() {
            // Empty lines before a head are no part of it; whoever parses it overlooks them too.
            let is_part = |byte: &u8| !matches!(byte, b'\r' | b'\n');
            let Some(empty) = self.seen[self.given..].iter().position(is_part) else { return };
            let head = &self.seen[self.given + empty..];
            let status = head.get("HTTP/1.1 ".len()..).and_then(<[u8]>::first_chunk::<3>);
            match end_of_head(head) {
                Some(end) => {
                    self.part = match status {
                        Some(b"101") => Part::Switched,
                        Some([b'1', ..]) => Part::Head,
                        _ => Part::Other,
                    };
                    self.given += empty + end;
                }
                None if head.len() > LONGEST_HEAD => self.part = Part::Other,
                None => return,
            }
        }
        if self.part == Part::Other {
            self.given = self.seen.len();
        }
    }

    /// The backend has said all.
    pub(super) fn end(&mut self) {
        if self.part == Part::Head {
            self.part = Part::Other;
            self.given = self.seen.len();
        }
    }

    /// Gives Pingora what there is for it; false where that is nothing.
    pub(super) fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let given = self.given.min(buf.remaining());
        if given == 0 {
            return false;
        }
        buf.put_slice(&self.seen[..given]);
        self.seen.drain(..given);
        self.given -= given;
        true
    }
}

/// Where a head ends: behind an empty line, however lines end there.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let after = |at: usize| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    };
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(at, _)| after(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Pingora gets and what is left, of an answer that comes in pieces of this size.
    fn answered(bytes: &[u8], pieces: usize) -> (String, String) {
        let (mut answer, mut got) = (Answer::default(), Vec::new());
        for piece in bytes.chunks(pieces) {
            answer.add(piece);
            let mut room = [0; 5];
            let mut buf = ReadBuf::new(&mut room);
            while answer.give(&mut buf) {
                got.extend_from_slice(buf.filled());
                buf.clear();
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&got), text(&answer.seen))
    }

    #[test]
    fn pingora_gets_the_head_of_a_101_and_not_a_byte_more() {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        for head in
            ["HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "\r\nHTTP/1.1 101\nA: b\n\n"]
        {
            for before in ["", early] {
                for pieces in [1, 3, 50, 1000] {
                    let (got, left) = answered(format!("{before}{head}frames\r\n\r\n").as_bytes(), pieces);
                    assert_eq!((got, left.as_str()), (format!("{before}{head}"), "frames\r\n\r\n"));
                }
            }
        }
    }

    #[test]
    fn pingora_gets_all_of_any_other_answer() {
        for pieces in [1, 3, 50, 1000] {
            for answer in
                ["HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno!", "HTTP/1.1 200 OK\r\n\r\nwhole"]
            {
                assert_eq!(answered(answer.as_bytes(), pieces), (answer.to_owned(), String::new()));
            }
        }
        let mut cut = Answer::default();
        cut.add(b"HTTP/1.1 101 Swi");
        cut.end();
        assert_eq!(cut.given, cut.seen.len(), "what is no head at its end is for Pingora to judge");
    }
}
