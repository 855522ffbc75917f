//! Blocks of header fields over HTTP/2 (HPACK), which h2 reads behind the gateway's own decoder.

use gateway::downstream::http2::hpack::{Decoder, Error, Fields, MAX_LIST};

use crate::http2_frames::{self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PADDED, PRIORITY};

/// What a field counts besides its bytes (RFC 7541 4.1).
const OVERHEAD: usize = 32;

/// What a decoder holds between two blocks: the table's entries, what describes them, and two buffers of 1 KiB.
const MAX_DECODER: usize = 4096 + 4096 + 2 * 1024;

/// What the fields of a block hold: buffers that have grown to twice of what is in them.
const MAX_FIELDS: usize = 4 * MAX_LIST;

/// A field that is found in the static table, as it is written and as it is read.
const GET: (&[u8], (&[u8], &[u8])) = (&[0x82], (b":method", b"GET"));

type List = Vec<(Vec<u8>, Vec<u8>)>;

/// Checks that the gateway decodes what another, more lenient decoder does, over all blocks of a connection and up to the
/// limits. The memory held stays within its bounds. h2 is given the same fields, in whatever frames a block comes.
pub fn check(input: &[u8]) {
    let (mut decoder, mut fields) = (Decoder::default(), Fields::default());
    let mut other = loona_hpack::Decoder::new();
    other.set_max_allowed_table_size(4096);
    let mut lists = Vec::new();
    for block in blocks(input) {
        match decoder.decode(block, &mut fields) {
            Ok(()) => is_what_another_finds(block, &fields, &mut other),
            Err(error) => {
                is_refused_for_a_reason(block, error, &mut other);
                break;
            }
        }
        assert!(decoder.held() <= MAX_DECODER, "it holds {} bytes: {}", decoder.held(), said(block));
        assert!(fields.held() <= MAX_FIELDS, "its fields hold {} bytes: {}", fields.held(), said(block));
        lists.push((list(&fields), fields.is_over));
    }
    is_the_same_in_all_frames(input, &lists);
}

/// The blocks of one connection: two bytes say how long each is.
fn blocks(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = input.split_first_chunk::<2>()?;
        let (block, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        input = rest;
        Some(block)
    })
}

fn said(block: &[u8]) -> std::slice::EscapeAscii<'_> {
    block.escape_ascii()
}

fn list(fields: &Fields) -> List {
    fields.iter().map(|(name, value, _)| (name.to_vec(), value.to_vec())).collect()
}

fn size(list: &[(Vec<u8>, Vec<u8>)]) -> usize {
    list.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD).sum()
}

fn is_what_another_finds(block: &[u8], fields: &Fields, other: &mut loona_hpack::Decoder<'_>) {
    // A block of nothing but new sizes of the table is a valid one, which the other decoder refuses.
    let found = other.decode(&[block, GET.0].concat());
    let Ok(mut all) = found else { panic!("another refuses ({found:?}) {}", said(block)) };
    assert_eq!(all.pop(), Some((GET.1.0.to_vec(), GET.1.1.to_vec())), "it ends elsewhere: {}", said(block));
    assert!(!resizes_late(block), "the table's size changes behind a field: {}", said(block));
    let mut kept = all.len();
    while size(&all[..kept]) > MAX_LIST {
        kept -= 1;
    }
    let never_indexed =
        representations(block).filter(|bytes| !is_resize(bytes)).map(|bytes| bytes[0] & 0xf0 == 0x10);
    assert!(list(fields) == all[..kept], "another finds other fields: {}", said(block));
    assert_eq!(fields.size, size(&all[..kept]), "they have another size: {}", said(block));
    assert_eq!(fields.is_over, kept < all.len(), "of {} fields: {}", all.len(), said(block));
    assert!(
        fields.iter().map(|(_, _, never)| never).eq(never_indexed.take(kept)),
        "others must not be indexed: {}",
        said(block)
    );
}

/// The gateway refuses what the other decoder does, and of what that takes, a list that is far too large, and a table
/// that gets another size behind a field (RFC 7541 4.2).
fn is_refused_for_a_reason(block: &[u8], error: Error, other: &mut loona_hpack::Decoder<'_>) {
    let Ok(all) = other.decode(block) else { return };
    let is_right = match error {
        Error::TooLarge => size(&all) > 4 * MAX_LIST,
        Error::Compression => resizes_late(block),
    };
    assert!(is_right, "another takes what is refused ({error:?}): {}", said(block));
}

/// Whether the table gets another size behind a field.
fn resizes_late(block: &[u8]) -> bool {
    representations(block).skip_while(|bytes| is_resize(bytes)).any(is_resize)
}

fn is_resize(representation: &[u8]) -> bool {
    representation[0] & 0xe0 == 0x20
}

/// Each field and each new size of the table, as it is written (RFC 7541 6).
fn representations(mut block: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let mut rest = block;
        let (bits, is_literal) = match *block.first()? {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = integer(&mut rest, bits)?;
        let strings = if !is_literal { 0 } else { 1 + usize::from(index == 0) };
        for _ in 0..strings {
            let length = integer(&mut rest, 7)?;
            rest = rest.get(length..)?;
        }
        let (representation, behind) = block.split_at(block.len() - rest.len());
        block = behind;
        Some(representation)
    })
}

/// An integer whose first byte has so many bits of it (RFC 7541 5.1).
fn integer(bytes: &mut &[u8], bits: u32) -> Option<usize> {
    let most = (1 << bits) - 1;
    let (first, mut rest) = bytes.split_first()?;
    let mut value = usize::from(*first) & most;
    let mut shift = 0;
    let mut goes_on = value == most;
    while goes_on {
        let (byte, behind) = rest.split_first()?;
        value = value.checked_add(usize::from(byte & 0x7f).checked_shl(shift)?)?;
        (goes_on, shift, rest) = (byte & 0x80 != 0, shift + 7, behind);
    }
    *bytes = rest;
    Some(value)
}

/// What h2 is given does not depend on the frames that the blocks come in, and is what was decoded.
fn is_the_same_in_all_frames(input: &[u8], lists: &[(List, bool)]) {
    let few = http2_frames::inspect(&connection(input, few_frames), 10_000);
    let many = http2_frames::inspect(&connection(input, many_frames), 1000);
    assert!(few == many, "in other frames it is another: {}", said(input));
    let heads = http2_frames::heads(&few.passed);
    assert_eq!(heads.len(), lists.len(), "not every head is passed on: {}", said(input));
    let malformed = vec![(b"connection".to_vec(), b"malformed".to_vec())];
    for (head, (list, is_over)) in heads.iter().zip(lists) {
        let has_host = |(name, _): &&(Vec<u8>, Vec<u8>)| name != b"host";
        let is_it = *head == malformed
            || (head == list && !is_over)
            || (*is_over
                && head[..] == [&list[..], &head[head.len() - 1..]].concat()
                && size(head) > MAX_LIST)
            || head.iter().eq(list.iter().filter(has_host));
        assert!(is_it, "h2 is given other fields: {}", said(input));
    }
}

/// The frames in which all blocks come, each on a stream of its own.
fn connection(input: &[u8], frames: impl Fn(u32, &[u8]) -> Vec<u8>) -> Vec<u8> {
    (0..).zip(blocks(input)).flat_map(|(number, block)| frames(2 * number + 1, block)).collect()
}

fn few_frames(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = block.chunks(16 * 1024).collect();
    let first = if parts.is_empty() { &[][..] } else { parts.remove(0) };
    spread(stream, END_STREAM, first, &parts)
}

/// Padding, a priority, and as many parts as there may be.
fn many_frames(stream: u32, block: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = block.chunks(block.len().div_ceil(16).max(1)).collect();
    spread(stream, END_STREAM | PADDED | PRIORITY, &[2, 0, 0, 0, 0, 9, 0, 0], &parts)
}

fn spread(stream: u32, flags: u8, first: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let last = |left: usize| if left == 0 { END_HEADERS } else { 0 };
    let mut frames = http2_frames::frame(HEADERS, flags | last(parts.len()), stream, first);
    for (number, part) in parts.iter().enumerate() {
        let flags = last(parts.len() - 1 - number);
        frames.extend(http2_frames::frame(CONTINUATION, flags, stream, part));
    }
    frames
}
