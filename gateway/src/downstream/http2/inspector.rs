//! Inspection of the bytes from a client before h2 reads them. Heads are decoded and encoded anew. So a malformed
//! request ends only its own stream, and invalid requests that h2 would accept do not reach h2 (`request_head`). The
//! [`Ledger`] records every other frame, which then passes unchanged.

use tokio::io::ReadBuf;

use super::frame::{
    CONTINUATION, END_HEADERS, END_STREAM, FrameHead, FramePart, FrameReader, HEADERS, MAX_PAYLOAD, PADDED,
    PRIORITY,
};
use super::hpack::{self, Decoder, Fields, MAX_LIST};
use super::ledger::{Abuse, Ledger};
use super::request_head;

/// Maximum size of an encoded header block, larger than the largest accepted field list.
const MAX_BLOCK: usize = 80 * 1024;

/// Maximum number of CONTINUATION frames of a header block.
const MAX_CONTINUATIONS: u32 = 16;

/// Maximum number of heads that h2 gets at a time. Before h2 reads more, it writes its pending frames. So the ledger
/// learns of the resets that a client has caused before the client can cause many more.
const HEADS_AT_ONCE: u32 = 8;

/// Reason why the gateway ends a connection: the error code for the GOAWAY, and the abuse.
pub type Fatal = (h2::Reason, Abuse);

/// Inspector of the bytes from a client.
#[derive(Debug)]
pub struct FrameInspector {
    frames: FrameReader,
    block: Block,
    decoder: Decoder,
    fields: Fields,
    /// Bytes from the client. The first `looked_at` bytes have been inspected.
    unread: Vec<u8>,
    looked_at: usize,
    /// Bytes for h2. The first `given` bytes have been given to it.
    ready: Vec<u8>,
    given: usize,
    /// Number of heads for h2 since h2 was last made to wait.
    heads: u32,
    /// Number of malformed heads since the last call of `take_malformed`.
    malformed: u32,
    /// True if a head has ended since the last call of `take_ended_head`.
    has_ended_head: bool,
}

/// Header block that is arriving now.
#[derive(Debug, Default)]
struct Block {
    /// Head of the HEADERS frame that began the block; `None` while no block is arriving.
    head: Option<FrameHead>,
    bytes: Vec<u8>,
    /// Start of the current frame's payload within `bytes`.
    start: usize,
    continuations: u32,
    /// True if the client's priority makes the stream depend on itself, which is an error (RFC 9113 5.3.1).
    depends_on_itself: bool,
}

impl FrameInspector {
    /// Creates an inspector of the frames after a preface of `preface` bytes.
    pub fn new(preface: usize) -> Self {
        FrameInspector {
            frames: FrameReader::new(preface),
            block: Block::default(),
            decoder: Decoder::default(),
            fields: Fields::default(),
            unread: Vec::new(),
            looked_at: 0,
            ready: Vec::new(),
            given: 0,
            heads: 0,
            malformed: 0,
            has_ended_head: false,
        }
    }

    /// Returns true if a head has begun and has not ended.
    pub fn is_within_head(&self) -> bool {
        self.block.head.is_some()
    }

    /// Returns true if a head has ended since the last call.
    pub(super) fn take_ended_head(&mut self) -> bool {
        std::mem::take(&mut self.has_ended_head)
    }

    /// Returns the number of malformed heads since the last call.
    pub fn take_malformed(&mut self) -> u32 {
        std::mem::take(&mut self.malformed)
    }

    /// Returns true if h2 has received enough heads for now. Then a new count starts.
    pub fn must_wait(&mut self) -> bool {
        let must_wait = self.heads >= HEADS_AT_ONCE;
        if must_wait {
            self.heads = 0;
        }
        must_wait
    }

    /// Returns the number of bytes of memory that are held.
    pub fn held(&self) -> usize {
        let buffers = [&self.block.bytes, &self.unread, &self.ready].map(Vec::capacity);
        buffers.iter().sum::<usize>() + self.decoder.held() + self.fields.held()
    }

    /// Gives h2 the bytes that are ready. Returns false if there are none.
    pub fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let ready = &self.ready[self.given..];
        let part = &ready[..ready.len().min(buf.remaining())];
        buf.put_slice(part);
        self.given += part.len();
        let has_given = !part.is_empty();
        if self.given == self.ready.len() {
            reset(&mut self.ready);
            self.given = 0;
        }
        has_given
    }

    /// Returns true if some bytes from the client have not been inspected.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Inspects the bytes that an earlier call has not inspected.
    ///
    /// # Errors
    /// Returns the reason if the connection must end. h2 still gets the bytes that were ready before.
    pub fn resume(&mut self, ledger: &mut Ledger) -> Result<(), Fatal> {
        let unread = std::mem::take(&mut self.unread);
        self.looked_at += self.look(&unread[self.looked_at..], ledger)?;
        self.unread = unread;
        if self.looked_at == self.unread.len() {
            reset(&mut self.unread);
            self.looked_at = 0;
        }
        Ok(())
    }

    /// Inspects bytes from the client. If they contain too many heads, the rest waits for [`resume`](Self::resume).
    ///
    /// # Errors
    /// Returns the same errors as [`resume`](Self::resume).
    pub fn on_data(&mut self, bytes: &[u8], ledger: &mut Ledger) -> Result<(), Fatal> {
        let looked_at = self.look(bytes, ledger)?;
        self.unread.extend_from_slice(&bytes[looked_at..]);
        Ok(())
    }

    /// Inspects bytes until the maximum number of heads is ready for h2. Returns the number of inspected bytes.
    fn look(&mut self, all: &[u8], ledger: &mut Ledger) -> Result<usize, Fatal> {
        let mut bytes = all;
        while self.heads < HEADS_AT_ONCE {
            match self.frames.next(&mut bytes) {
                None => break,
                Some(FramePart::Begins(frame)) => self.begin(frame, ledger)?,
                Some(FramePart::Payload(payload)) if self.is_within_head() => {
                    self.block.bytes.extend_from_slice(payload)
                }
                Some(FramePart::Payload(payload)) => self.ready.extend_from_slice(payload),
            }
            if self.is_within_head() && self.frames.is_at_end() {
                self.end_frame(ledger)?;
            }
        }
        Ok(all.len() - bytes.len())
    }

    fn begin(&mut self, frame: FrameHead, ledger: &mut Ledger) -> Result<(), Fatal> {
        const PROTOCOL_ERROR: Fatal = (h2::Reason::PROTOCOL_ERROR, Abuse::Connection);
        if frame.length > MAX_PAYLOAD {
            return Err((h2::Reason::FRAME_SIZE_ERROR, Abuse::Connection));
        }
        match (self.block.head, frame.kind) {
            (None, HEADERS) if frame.stream != 0 => {
                self.block.head = Some(frame);
                self.block.start = 0;
                self.block.continuations = 0;
                self.block.depends_on_itself = false;
            }
            (Some(head), CONTINUATION) if head.stream == frame.stream => {
                self.block.start = self.block.bytes.len();
                self.block.continuations += 1;
                let size = self.block.bytes.len() + frame.length;
                if size > MAX_BLOCK || self.block.continuations > MAX_CONTINUATIONS {
                    return Err((h2::Reason::ENHANCE_YOUR_CALM, Abuse::Head));
                }
            }
            // RFC 9113 6.2 and 6.10: no other frame may be between the frames of a block.
            (Some(_), _) | (None, HEADERS | CONTINUATION) => return Err(PROTOCOL_ERROR),
            (None, _) => {
                ledger.on_frame(frame);
                self.ready.extend_from_slice(&frame.bytes());
            }
        }
        Ok(())
    }

    /// Handles the end of a frame that is part of a block.
    fn end_frame(&mut self, ledger: &mut Ledger) -> Result<(), Fatal> {
        let frame = self.frames.frame();
        if frame.kind == HEADERS {
            self.block.strip(frame).ok_or((h2::Reason::PROTOCOL_ERROR, Abuse::Connection))?;
        }
        if !frame.has(END_HEADERS) {
            return Ok(());
        }
        let Some(head) = self.block.head.take() else { return Ok(()) };
        let decoded = self.decoder.decode(&self.block.bytes, &mut self.fields);
        reset(&mut self.block.bytes);
        match decoded {
            Ok(()) => {}
            Err(hpack::Error::Compression) => return Err((h2::Reason::COMPRESSION_ERROR, Abuse::Connection)),
            Err(hpack::Error::TooLarge) => return Err((h2::Reason::ENHANCE_YOUR_CALM, Abuse::Head)),
        }
        let opens = ledger.on_head(head.stream);
        self.pass(head, opens);
        // The connection may be idle from now on, so the memory is freed.
        self.fields.clear();
        self.heads += 1;
        self.has_ended_head = true;
        Ok(())
    }

    /// Encodes a head for h2. `opens` is true for the head of a request, and false for trailers.
    fn pass(&mut self, head: FrameHead, opens: bool) {
        let mut block = Vec::with_capacity(self.fields.size);
        let verdict = match opens {
            _ if self.block.depends_on_itself => Err("a stream that depends on itself"),
            true => request_head::check(&self.fields).map(|named| named.has_spare_host()),
            false => request_head::check_trailers(&self.fields).map(|()| false),
        };
        match verdict {
            Ok(is_host_spare) => {
                hpack::encode(&self.fields, |name| is_host_spare && name == b"host", &mut block);
                if self.fields.is_over {
                    // h2 answers a field list above its limit with 431. This field makes the list exceed the limit.
                    block.push(0);
                    hpack::put_string(b"x", &mut block);
                    hpack::put_string(&vec![b'x'; MAX_LIST - self.fields.size + 1], &mut block);
                }
            }
            Err(reason) => {
                tracing::debug!(stream = head.stream, reason, "resetting a malformed HTTP/2 request");
                self.malformed += 1;
                // This field makes h2 reset the stream (RFC 9113 8.2.2), and has no other effect.
                block.push(0);
                hpack::put_string(b"connection", &mut block);
                hpack::put_string(b"malformed", &mut block);
            }
        }
        self.write_head(head, &block);
    }

    fn write_head(&mut self, head: FrameHead, block: &[u8]) {
        let (first, mut rest) = block.split_at(block.len().min(MAX_PAYLOAD));
        let last = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
        let flags = (head.flags & END_STREAM) | last(rest);
        self.write_frame(FrameHead { length: first.len(), flags, ..head }, first);
        while !rest.is_empty() {
            let (part, next) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            rest = next;
            let frame = FrameHead { length: part.len(), kind: CONTINUATION, flags: last(rest), ..head };
            self.write_frame(frame, part);
        }
    }

    fn write_frame(&mut self, frame: FrameHead, payload: &[u8]) {
        self.ready.extend_from_slice(&frame.bytes());
        self.ready.extend_from_slice(payload);
    }
}

impl Block {
    /// Removes from the payload of a HEADERS frame the bytes that are not part of the block (RFC 9113 6.2). Returns
    /// `None` if the payload is malformed.
    fn strip(&mut self, frame: FrameHead) -> Option<()> {
        let mut payload = &self.bytes[self.start..];
        if frame.has(PADDED) {
            let (padding, rest) = payload.split_first()?;
            payload = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        if frame.has(PRIORITY) {
            let (priority, rest) = payload.split_first_chunk::<5>()?;
            let [a, b, c, d, _weight] = *priority;
            self.depends_on_itself = u32::from_be_bytes([a & 0x7f, b, c, d]) == frame.stream;
            payload = rest;
        }
        let start = payload.as_ptr() as usize - self.bytes.as_ptr() as usize;
        let end = start + payload.len();
        self.bytes.truncate(end);
        self.bytes.drain(self.start..start);
        Some(())
    }
}

/// Empties a buffer, and frees the memory of a large block.
fn reset(buffer: &mut Vec<u8>) {
    const KEPT: usize = 4 * 1024;
    buffer.clear();
    buffer.shrink_to(KEPT);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::frame::DATA;
    use super::super::hpack::tests::block;
    use super::*;
    use crate::downstream::http2::ledger::Verdict;
    use crate::downstream::http2::streams::OpenStreams;

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        [&FrameHead { length: payload.len(), kind, flags, stream }.bytes()[..], payload].concat()
    }

    fn head(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
    }

    /// Returns the bytes that h2 gets if `bytes` arrive in chunks of `at_once` bytes.
    fn given(bytes: &[u8], at_once: usize) -> Result<Vec<u8>, Fatal> {
        let mut inspector = FrameInspector::new(0);
        let mut ledger = Ledger::new(Arc::<Verdict>::default(), OpenStreams::alone());
        let mut all = Vec::new();
        for bytes in bytes.chunks(at_once) {
            inspector.on_data(bytes, &mut ledger)?;
            loop {
                let mut space = [0; 50];
                let mut buf = ReadBuf::new(&mut space);
                while inspector.give(&mut buf) {
                    all.extend_from_slice(buf.filled());
                    buf.clear();
                }
                if !inspector.has_unread() {
                    break;
                }
                assert!(inspector.must_wait());
                inspector.resume(&mut ledger)?;
            }
            inspector.must_wait();
        }
        Ok(all)
    }

    fn is_given(bytes: &[u8], expected: &[u8]) {
        for at_once in [1, 7, 100_000] {
            assert_eq!(given(bytes, at_once).unwrap(), expected, "by {at_once}");
        }
    }

    const MALFORMED: [(&str, &str); 1] = [("connection", "malformed")];

    #[test]
    fn heads_are_encoded_anew_and_other_frames_pass() {
        let data = frame(DATA, 0, 1, &[HEADERS; 300]);
        let settings = frame(4, 0, 0, &[0; 6]);
        // RFC 7541 C.3: the first head adds an entry to the table, and the second head uses it.
        let added = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x86\x84\x41\x01a");
        let used = frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x82\x86\x84\xbe");
        let order = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        let came = [&settings[..], &added, &data, &used, &settings].concat();
        is_given(&came, &[&settings[..], &head(1, &order), &data, &head(3, &order), &settings].concat());
    }

    #[test]
    fn padding_priority_and_continuations_are_removed() {
        let fields = block(&GET);
        let (one, other) = fields.split_at(10);
        let padded = [&[3, 0, 0, 0, 0, 9][..], one, &[0; 3]].concat();
        let came = [
            frame(HEADERS, END_STREAM | PADDED | PRIORITY, 5, &padded),
            frame(CONTINUATION, 0, 5, b""),
            frame(CONTINUATION, END_HEADERS, 5, other),
        ];
        is_given(&came.concat(), &head(5, &GET));
        let too_much_padding = frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0, 0]);
        assert_eq!(given(&too_much_padding, 100).unwrap_err().0, h2::Reason::PROTOCOL_ERROR);
        let on_itself = [&[0, 0, 0, 7, 1][..], &fields].concat();
        is_given(&frame(HEADERS, END_HEADERS | END_STREAM | PRIORITY, 7, &on_itself), &head(7, &MALFORMED));
    }

    #[test]
    fn malformed_head_is_reset_and_next_head_is_decoded() {
        // The malformed field is added to the table too, so the later index counts it.
        let bad =
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x86\x84\x41\x01a\x40\x01A\x01b\x40\x01x\x01y");
        let next = frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x82\x86\x84\xc0\xbe");
        let expected =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), ("x", "y")];
        is_given(&[bad, next].concat(), &[head(1, &MALFORMED), head(3, &expected)].concat());
        // Trailers, and a Host field that names the same host as `:authority`.
        let open = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS, 1, &block(fields));
        let came = [open(&GET), head(1, &[("x", "y")]), head(1, &[(":path", "/")])].concat();
        is_given(&came, &[open(&GET), head(1, &[("x", "y")]), head(1, &MALFORMED)].concat());
        is_given(&head(1, &[&GET[..], &[("host", "A:80")]].concat()), &head(1, &GET));
        let other = [&GET[..], &[("host", "b")]].concat();
        is_given(&head(1, &other), &head(1, &other));
    }

    #[test]
    fn large_head_is_split_and_too_large_head_exceeds_the_limit() {
        let text = "x".repeat(15_000);
        let fields = [&GET[..], &[("a", &text[..]), ("b", &text), ("c", &text)]].concat();
        let bytes = block(&fields);
        let frames = |bytes: &[u8]| {
            let last = bytes.chunks(MAX_PAYLOAD).count() - 1;
            let frame = |(i, part): (usize, &[u8])| {
                let flags = if i == last { END_HEADERS } else { 0 };
                let (kind, more) = if i == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
                frame(kind, flags | more, 1, part)
            };
            bytes.chunks(MAX_PAYLOAD).enumerate().map(frame).collect::<Vec<_>>().concat()
        };
        is_given(&frames(&bytes), &frames(&bytes));
        let more = block(&[&fields[..], &[("d", &text[..]), ("e", &text)]].concat());
        let over = given(&frames(&more), 1000).unwrap();
        assert!(over.len() > MAX_LIST - 1000 && over.len() < MAX_LIST + 1000, "{}", over.len());
    }

    #[test]
    fn memory_of_a_large_head_is_freed_before_idle_time() {
        let mut inspector = FrameInspector::new(0);
        let mut ledger = Ledger::new(Arc::<Verdict>::default(), OpenStreams::alone());
        // An entry of 3 KiB in the table, and a head that uses it twenty times.
        let entry = [&b"\x40\x01a\x7f\xb1\x17"[..], &[b'x'; 3120]].concat();
        for (stream, block) in [(1, entry), (3, vec![0xbe; 20])] {
            inspector.on_data(&frame(HEADERS, END_HEADERS, stream, &block), &mut ledger).unwrap();
        }
        assert!(inspector.held() > MAX_LIST - 4096, "the head is there: {}", inspector.held());
        let mut space = [0; 1000];
        while inspector.give(&mut ReadBuf::new(&mut space)) {}
        assert!(inspector.held() < 32 * 1024, "{}", inspector.held());
    }

    #[test]
    fn h2_is_given_few_heads_at_a_time() {
        let mut inspector = FrameInspector::new(0);
        let mut ledger = Ledger::new(Arc::<Verdict>::default(), OpenStreams::alone());
        let heads: Vec<u8> = (0..20).flat_map(|i| head(2 * i + 1, &GET)).collect();
        let each = heads.len() / 20;
        inspector.on_data(&heads, &mut ledger).unwrap();
        assert_eq!(inspector.ready.len(), 8 * each);
        assert!(inspector.must_wait() && !inspector.must_wait());
        inspector.resume(&mut ledger).unwrap();
        assert_eq!(inspector.ready.len(), 16 * each);
        assert!(inspector.must_wait());
        inspector.resume(&mut ledger).unwrap();
        assert!(inspector.ready == heads && !inspector.has_unread() && !inspector.must_wait());
    }

    #[test]
    fn connection_error_ends_the_connection() {
        let begun = frame(HEADERS, 0, 1, &block(&GET));
        let continued = |flags, stream| frame(CONTINUATION, flags, stream, b"");
        for (bytes, expected) in [
            (frame(HEADERS, END_HEADERS, 0, &block(&GET)), h2::Reason::PROTOCOL_ERROR),
            (continued(END_HEADERS, 1), h2::Reason::PROTOCOL_ERROR),
            ([begun.clone(), frame(DATA, 0, 1, b"")].concat(), h2::Reason::PROTOCOL_ERROR),
            ([begun.clone(), head(3, &GET)].concat(), h2::Reason::PROTOCOL_ERROR),
            ([begun.clone(), continued(END_HEADERS, 3)].concat(), h2::Reason::PROTOCOL_ERROR),
            (frame(HEADERS, END_HEADERS, 1, b"\x80"), h2::Reason::COMPRESSION_ERROR),
            (
                FrameHead { length: MAX_PAYLOAD + 1, kind: DATA, flags: 0, stream: 1 }.bytes().into(),
                h2::Reason::FRAME_SIZE_ERROR,
            ),
            ([begun.clone(), continued(0, 1).repeat(17)].concat(), h2::Reason::ENHANCE_YOUR_CALM),
            (
                [begun, frame(CONTINUATION, 0, 1, &[0; MAX_PAYLOAD]).repeat(5)].concat(),
                h2::Reason::ENHANCE_YOUR_CALM,
            ),
        ] {
            for at_once in [1, 1000] {
                assert_eq!(given(&bytes, at_once).unwrap_err().0, expected, "{:?}", &bytes[..9]);
            }
        }
    }

    #[test]
    fn any_bytes_end_a_connection_or_pass() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..5_000 {
            let mut bytes = Vec::new();
            for _ in 0..random.usize(1..6) {
                let payload: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
                bytes.extend(frame(random.u8(..11), random.u8(..), random.u32(..9), &payload));
            }
            let _passed_or_ended = given(&bytes, random.usize(1..50));
        }
    }
}
