//! Checks of HTTP/2 header blocks (HPACK). The gateway's decoder reads them first, then h2 does.

use gateway::downstream::http2::hpack::{Decoder, Error, Fields, MAX_LIST};

use crate::http2_frames::{self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PADDED, PRIORITY};

/// Size that each field counts in addition to its name and value (RFC 7541 4.1).
const OVERHEAD: usize = 32;

/// Memory that a decoder may hold between two blocks: the entries of the table, their descriptions, and two
/// buffers of 1 KiB.
const MAX_DECODER: usize = 4096 + 4096 + 2 * 1024;

/// Memory that the fields of a block may hold. A buffer may have grown to twice the size of its content.
const MAX_FIELDS: usize = 4 * MAX_LIST;

/// A field of the static table, encoded and decoded.
const GET: (&[u8], (&[u8], &[u8])) = (&[0x82], (b":method", b"GET"));

type List = Vec<(Vec<u8>, Vec<u8>)>;

/// Checks that the gateway decodes the same fields as another, more lenient decoder, over all blocks of a
/// connection and up to the limits. The memory held must stay within its bounds. h2 must get the same fields
/// for every division of a block into frames.
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

/// Splits the input into the blocks of one connection. Two bytes before each block are its length.
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
    // A block that only changes the size of the table is valid, but the other decoder refuses it. Hence one
    // more field.
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

/// Checks that the gateway has a reason for a refusal. It may refuse a block that the other decoder refuses as
/// well, a list that is far too large, and a change of the table size after a field (RFC 7541 4.2).
fn is_refused_for_a_reason(block: &[u8], error: Error, other: &mut loona_hpack::Decoder<'_>) {
    let Ok(all) = other.decode(block) else { return };
    let is_right = match error {
        Error::TooLarge => size(&all) > 4 * MAX_LIST,
        Error::Compression => resizes_late(block),
    };
    assert!(is_right, "another takes what is refused ({error:?}): {}", said(block));
}

/// Returns true if the block changes the table size after a field.
fn resizes_late(block: &[u8]) -> bool {
    representations(block).skip_while(|bytes| is_resize(bytes)).any(is_resize)
}

fn is_resize(representation: &[u8]) -> bool {
    representation[0] & 0xe0 == 0x20
}

/// Splits a block into its encoded fields and changes of the table size (RFC 7541 6).
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

/// Reads an integer whose first byte holds `bits` bits of it (RFC 7541 5.1).
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

/// Checks that h2 gets the decoded fields, and that they do not depend on the frames in which the blocks arrive.
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

/// Returns the frames of all blocks, each block on its own stream.
fn connection(input: &[u8], frames: impl Fn(u32, &[u8]) -> Vec<u8>) -> Vec<u8> {
    (0..).zip(blocks(input)).flat_map(|(number, block)| frames(2 * number + 1, block)).collect()
}

fn few_frames(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = block.chunks(16 * 1024).collect();
    let first = if parts.is_empty() { &[][..] } else { parts.remove(0) };
    spread(stream, END_STREAM, first, &parts)
}

/// Returns frames with padding, a priority, and the highest number of parts that the gateway allows.
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
