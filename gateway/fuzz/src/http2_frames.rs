//! Checks of the bytes that a client sends over HTTP/2. The gateway's inspector reads them first, then h2 does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use gateway::downstream::http2::inspector::{Fatal, FrameInspector};
use gateway::downstream::http2::ledger::{Ledger, Verdict};
use gateway::downstream::http2::{OpenStreams, StreamLimit};
use prometheus::{IntCounter, IntGauge};
use tokio::io::ReadBuf;

/// Preface of a client's connection (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Size of a frame's head, and the largest payload, in bytes.
const FRAME_HEAD: usize = 9;
const MAX_PAYLOAD: usize = 16 * 1024;

pub(crate) const HEADERS: u8 = 1;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;

/// Limits of a head: its encoded size, the number of CONTINUATION frames, its decoded size, and the number of
/// heads that h2 gets at once.
const MAX_BLOCK: usize = 80 * 1024;
const MAX_CONTINUATIONS: usize = 16;
const MAX_LIST: usize = 64 * 1024;
const HEADS_AT_ONCE: usize = 8;

/// Largest size of padding with its length byte, and of a priority.
const MAX_AROUND_BLOCK: usize = 1 + 255 + 5;

/// Memory that an inspector may hold between heads: its buffers and the table of the decoder.
const AT_REST: usize = 32 * 1024;

/// Longest run time in which the budgets of a connection are not yet refilled.
const NO_TIME: Duration = Duration::from_millis(10);

/// Checks that neither the bytes that h2 gets nor the verdict depend on the pieces in which the bytes arrive.
/// h2 must get whole heads, which another decoder can read and HTTP/1 can carry, and all other frames
/// unchanged. The memory held must stay within its bounds.
pub fn check(input: &[u8]) {
    let begun = Instant::now();
    let whole = inspect(input, usize::MAX);
    for size in [1, 7, 1000] {
        let pieces = inspect(input, size);
        let is_same = pieces.passed == whole.passed
            && (pieces.fatal, pieces.malformed) == (whole.fatal, whole.malformed)
            && (pieces.abuse == whole.abuse || begun.elapsed() >= NO_TIME);
        assert!(is_same, "in pieces of {size} it is another: {}", input.escape_ascii());
    }
    is_complete(input, &whole);
    for head in heads(&whole.passed) {
        head.iter().for_each(|(name, value)| is_unambiguous(name, value));
    }
}

/// Result of the inspection of one connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// Bytes that h2 gets after the preface.
    pub(crate) passed: Vec<u8>,
    /// Reason why the connection ends, if it does.
    pub(crate) fatal: Option<Fatal>,
    /// Limit that the client has exceeded, if any.
    abuse: Option<Fatal>,
    malformed: u32,
}

/// Inspects the bytes of a client in pieces of `size` bytes, as a connection from which h2 reads.
pub(crate) fn inspect(input: &[u8], size: usize) -> Inspected {
    let verdict = Arc::<Verdict>::default();
    let mut ledger = Ledger::new(verdict.clone(), open_streams());
    let mut inspector = FrameInspector::new(PREFACE.len());
    let (mut passed, mut fatal, mut waits) = (Vec::new(), None, 0);
    'connection: for piece in [PREFACE, input].concat().chunks(size) {
        let mut looked_at = inspector.on_data(piece, &mut ledger);
        loop {
            is_bounded(&inspector, piece.len());
            while give(&mut inspector, &mut passed) {}
            if let Err(reason) = looked_at {
                fatal = Some(reason);
                break 'connection;
            }
            if !inspector.has_unread() {
                break;
            }
            assert!(inspector.must_wait(), "it leaves bytes: {}", input.escape_ascii());
            waits += 1;
            looked_at = inspector.resume(&mut ledger);
        }
        waits += usize::from(inspector.must_wait());
        let is_at_rest = !inspector.is_within_head();
        assert!(!is_at_rest || inspector.held() <= AT_REST, "at rest it holds {} bytes", inspector.held());
    }
    let behind_preface = passed.strip_prefix(PREFACE).map(<[u8]>::to_vec);
    let Some(passed) = behind_preface else {
        panic!("the preface is not passed on: {}", input.escape_ascii())
    };
    let heads = frames(&passed).filter(|frame| frame.kind == HEADERS).count();
    assert!(waits >= heads / HEADS_AT_ONCE, "of {heads} heads h2 is given too many at once");
    Inspected { passed, fatal, abuse: verdict.wait().now_or_never(), malformed: inspector.take_malformed() }
}

/// Returns the stream count of a gateway with only this connection.
fn open_streams() -> Arc<OpenStreams> {
    let (open, refused) = (IntGauge::new("open", "open"), IntCounter::new("refused", "refused"));
    let (Ok(open), Ok(refused)) = (open, refused) else { panic!("no metrics can be made") };
    OpenStreams::new(StreamLimit { most: 1, open, refused })
}

fn give(inspector: &mut FrameInspector, passed: &mut Vec<u8>) -> bool {
    let mut space = [0; 1000];
    let mut buf = ReadBuf::new(&mut space);
    let has_given = inspector.give(&mut buf);
    passed.extend_from_slice(buf.filled());
    has_given
}

/// Checks the memory held. Buffers grow to twice the size of their content: an encoded head, heads for h2, and
/// bytes that have arrived.
fn is_bounded(inspector: &FrameInspector, came: usize) {
    let heads = HEADS_AT_ONCE * (MAX_LIST + 1024);
    let most = AT_REST + 2 * (MAX_BLOCK + heads + 2 * came);
    assert!(inspector.held() <= most, "it holds {} bytes, of which {came} have come", inspector.held());
}

/// Checks that the inspector passes on every head on its stream, and every other frame unchanged. Heads and
/// frames may be missing only if the connection ends.
fn is_complete(input: &[u8], inspected: &Inspected) {
    let others = |bytes| -> Vec<Frame<'_>> { frames(bytes).filter(|frame| !frame.is_of_block()).collect() };
    let begun = |bytes| -> Vec<_> {
        let heads = frames(bytes).filter(|frame| frame.kind == HEADERS);
        heads.map(|frame| (frame.stream, frame.flags & END_STREAM)).collect()
    };
    let said = input.escape_ascii();
    let ((came, passed), (heads_came, heads_passed)) =
        ((others(input), others(&inspected.passed)), (begun(input), begun(&inspected.passed)));
    assert!(came.starts_with(&passed), "{passed:?} is passed on for {came:?}");
    assert!(heads_came.starts_with(&heads_passed), "heads {heads_passed:?} for {heads_came:?}: {said}");
    let taken = if inspected.fatal.is_none() { heads_came.len() } else { heads_passed.len() };
    for (size, continuations) in blocks(input).into_iter().take(taken) {
        assert!(size <= MAX_BLOCK + MAX_AROUND_BLOCK, "a block of {size} bytes");
        assert!(continuations <= MAX_CONTINUATIONS, "a block with {continuations} more frames: {said}");
    }
    if inspected.fatal.is_none() {
        assert_eq!(passed.len(), came.len(), "frames are missing: {said}");
        assert!(heads_passed.len() + 1 >= heads_came.len(), "heads are missing: {said}");
    }
}

/// Returns, for each block, its size with padding and priority, and its number of CONTINUATION frames.
fn blocks(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut blocks, mut is_open) = (Vec::<(usize, usize)>::new(), false);
    for frame in frames(bytes).filter(Frame::is_of_block) {
        match blocks.last_mut() {
            Some((size, continuations)) if is_open && frame.kind == CONTINUATION => {
                *size += frame.length;
                *continuations += 1;
            }
            _ => blocks.push((frame.length, 0)),
        }
        is_open = frame.flags & END_HEADERS == 0;
    }
    blocks
}

fn is_unambiguous(name: &[u8], value: &[u8]) {
    let is_name =
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
    let has_control = value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    // h2 makes a method and a URI of pseudo-header fields, or refuses them.
    let is_pseudo = name.starts_with(b":");
    assert!(is_name && (is_pseudo || !name.contains(&b':')), "the name {} is passed on", name.escape_ascii());
    assert!(is_pseudo || !has_control, "{} has the value {}", name.escape_ascii(), value.escape_ascii());
}

/// Returns the fields of each head. The frames must not need the dynamic table, and must have no padding and no
/// priority.
pub(crate) fn heads(bytes: &[u8]) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut heads, mut block, mut stream) = (Vec::new(), Vec::new(), 0);
    for frame in frames(bytes).filter(Frame::is_of_block) {
        if frame.kind == HEADERS {
            assert!(block.is_empty(), "a head begins within another");
            stream = frame.stream;
        }
        assert!(frame.stream == stream && frame.flags & (PADDED | PRIORITY) == 0, "{frame:?}");
        assert!(frame.is_whole() && frame.length <= MAX_PAYLOAD, "{frame:?}");
        block.extend_from_slice(frame.payload);
        if frame.flags & END_HEADERS != 0 {
            let list = loona_hpack::Decoder::new().decode(&std::mem::take(&mut block));
            heads.push(list.unwrap_or_else(|error| panic!("another cannot read it ({error}): {frame:?}")));
        }
    }
    assert!(block.is_empty(), "a head has no end");
    heads
}

/// A frame, which may be cut off at the end of the input.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'b> {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'b [u8],
}

impl Frame<'_> {
    fn is_of_block(&self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION)
    }

    fn is_whole(&self) -> bool {
        self.payload.len() == self.length
    }
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let ([high, middle, low, kind, flags, stream @ ..], rest) =
            bytes.split_first_chunk::<FRAME_HEAD>()?;
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        let stream = u32::from_be_bytes(*stream) & 0x7fff_ffff;
        Some(Frame { length, kind: *kind, flags: *flags, stream, payload })
    })
}

/// Encodes a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = payload.len().to_be_bytes();
    [&[high, middle, low, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}
