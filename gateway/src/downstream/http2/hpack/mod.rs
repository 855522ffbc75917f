//! Decoder of header blocks (RFC 7541), which lets the gateway check the fields of a request before h2 does. h2 ends
//! the whole connection for some errors that should end only one request, and accepts some invalid requests.

mod huffman;
mod table;

pub(super) use self::table::MAX_SIZE as MAX_TABLE;
use self::table::{OVERHEAD, Table};

/// Maximum size of the kept part of a field list. `SETTINGS_MAX_HEADER_LIST_SIZE` tells it to clients.
pub const MAX_LIST: usize = 64 * 1024;

/// Maximum size of a whole field list. A larger list ends the connection. Without this limit, a small block could
/// produce a very large list.
const MAX_DECODED: usize = 4 * MAX_LIST;

/// Reason why a block cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The block is invalid.
    Compression,
    /// The block produces a field list that is far too large.
    TooLarge,
}

/// Decoded fields of a block, in order.
#[derive(Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    fields: Vec<Field>,
    /// Size of the fields that are kept (RFC 9113 6.5.2).
    pub size: usize,
    /// True if the block has more fields than fit into [`MAX_LIST`]; those fields are not kept.
    pub is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    start: usize,
    value: usize,
    end: usize,
    never_indexed: bool,
}

impl Fields {
    /// Returns the name and value of each kept field, and true if the field must never be indexed (RFC 7541 6.2.3).
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], bool)> {
        self.fields.iter().map(|field| {
            let (name, value) = (&self.text[field.start..field.value], &self.text[field.value..field.end]);
            (name, value, field.never_indexed)
        })
    }

    /// Returns the number of bytes of memory that are held.
    pub fn held(&self) -> usize {
        self.text.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Removes the fields, and frees the memory of a large block.
    pub(in crate::downstream::http2) fn clear(&mut self) {
        const KEPT: usize = 4 * 1024;
        self.text.clear();
        self.text.shrink_to(KEPT);
        self.fields.clear();
        self.fields.shrink_to(KEPT / size_of::<Field>());
        (self.size, self.is_over) = (0, false);
    }

    fn push(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        let size = self.size + name.len() + value.len() + OVERHEAD;
        if self.is_over || size > MAX_LIST {
            self.is_over = true;
            return;
        }
        self.size = size;
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        let (value, end) = (start + name.len(), self.text.len());
        self.fields.push(Field { start, value, end, never_indexed });
    }
}

/// Decoder for the header blocks of a connection, with the table that earlier blocks have filled.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { table: Table::new(), name: Vec::new(), value: Vec::new() }
    }
}

impl Decoder {
    /// Returns the number of bytes of memory that are held.
    pub fn held(&self) -> usize {
        self.table.held() + self.name.capacity() + self.value.capacity()
    }

    /// Decodes a whole block into `fields`.
    ///
    /// # Errors
    /// Returns an error if the block cannot be decoded. Later blocks of the connection cannot be decoded either.
    pub fn decode(&mut self, block: &[u8], fields: &mut Fields) -> Result<(), Error> {
        fields.clear();
        let mut decoded = 0;
        let mut input = block;
        let mut may_resize = true;
        while let Some(first) = input.first().copied() {
            if first & 0xe0 == 0x20 {
                // RFC 7541 4.2: a change of the table size must come before the first field.
                let size = integer(&mut input, 5).filter(|_| may_resize);
                size.and_then(|size| self.table.resize(size)).ok_or(Error::Compression)?;
                continue;
            }
            may_resize = false;
            let never_indexed = first & 0xf0 == 0x10;
            let (name, value) = self.field(&mut input, first).ok_or(Error::Compression)?;
            decoded += name.len() + value.len() + OVERHEAD;
            if decoded > MAX_DECODED {
                return Err(Error::TooLarge);
            }
            fields.push(name, value, never_indexed);
        }
        const KEPT: usize = 1024;
        self.name.clear();
        self.name.shrink_to(KEPT);
        self.value.clear();
        self.value.shrink_to(KEPT);
        Ok(())
    }

    /// Decodes one field, whose first byte is `first`.
    fn field(&mut self, input: &mut &[u8], first: u8) -> Option<(&[u8], &[u8])> {
        if first & 0x80 != 0 {
            let index = integer(input, 7)?;
            return self.table.get(index);
        }
        let is_added = first & 0x40 != 0;
        let index = integer(input, if is_added { 6 } else { 4 })?;
        self.name.clear();
        if index == 0 {
            string(input, &mut self.name)?;
        } else {
            self.name.extend_from_slice(self.table.get(index)?.0);
        }
        self.value.clear();
        string(input, &mut self.value)?;
        if is_added {
            self.table.add(&self.name, &self.value);
        }
        Some((&self.name, &self.value))
    }
}

/// Decodes an integer that begins in the low `bits` bits of a byte (RFC 7541 5.1).
fn integer(input: &mut &[u8], bits: u32) -> Option<usize> {
    /// Maximum integer: larger than any valid length or index.
    const MAX: usize = 1 << 24;
    let mask = (1_u8 << bits).wrapping_sub(1);
    let (first, mut rest) = input.split_first()?;
    let mut value = usize::from(first & mask);
    if value == usize::from(mask) {
        for shift in [0, 7, 14, 21] {
            let (byte, next) = rest.split_first()?;
            rest = next;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *input = rest;
                return (value <= MAX).then_some(value);
            }
        }
        return None;
    }
    *input = rest;
    Some(value)
}

/// Decodes a string, plain or in Huffman code (RFC 7541 5.2), and appends it to `to`.
fn string(input: &mut &[u8], to: &mut Vec<u8>) -> Option<()> {
    let is_huffman = input.first()? & 0x80 != 0;
    let length = integer(input, 7)?;
    let (text, rest) = input.split_at_checked(length)?;
    *input = rest;
    if is_huffman {
        return huffman::decode(text, to);
    }
    to.extend_from_slice(text);
    Some(())
}

/// Encodes fields for h2 as literals that are not indexed, so that h2's decoder needs no table.
pub(super) fn encode(fields: &Fields, is_left_out: impl Fn(&[u8]) -> bool, to: &mut Vec<u8>) {
    for (name, value, never_indexed) in fields.iter().filter(|(name, ..)| !is_left_out(name)) {
        to.push(if never_indexed { 0x10 } else { 0 });
        put_string(name, to);
        put_string(value, to);
    }
}

/// Encodes a string without the Huffman code.
pub(super) fn put_string(text: &[u8], to: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 0x7f {
        to.push(length.to_le_bytes()[0]);
    } else {
        to.push(0x7f);
        length -= 0x7f;
        while length >= 0x80 {
            to.push(length.to_le_bytes()[0] | 0x80);
            length >>= 7;
        }
        to.push(length.to_le_bytes()[0]);
    }
    to.extend_from_slice(text);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a block in which each field is a literal (RFC 7541 6.2.2).
    pub(in crate::downstream::http2) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            put_string(name.as_bytes(), &mut block);
            put_string(value.as_bytes(), &mut block);
        }
        block
    }

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Error> {
        let mut fields = Fields::default();
        decoder.decode(block, &mut fields)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(fields.iter().map(|(name, value, _)| (text(name), text(value))).collect())
    }

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn requests_of_rfc_7541_are_decoded() {
        // RFC 7541 C.3 (plain) and C.4 (Huffman). Each example has three requests on one connection.
        let plain: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x0fwww.example.com",
            b"\x82\x86\x84\xbe\x58\x08no-cache",
            b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
        ];
        let huffman: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = Decoder::default();
            let (authority, get) = ((":authority", "www.example.com"), (":method", "GET"));
            let first = fields(&[get, (":scheme", "http"), (":path", "/"), authority]);
            assert_eq!(decode(&mut decoder, blocks[0]), Ok(first));
            let second =
                fields(&[get, (":scheme", "http"), (":path", "/"), authority, ("cache-control", "no-cache")]);
            assert_eq!(decode(&mut decoder, blocks[1]), Ok(second));
            let third = [
                get,
                (":scheme", "https"),
                (":path", "/index.html"),
                authority,
                ("custom-key", "custom-value"),
            ];
            assert_eq!(decode(&mut decoder, blocks[2]), Ok(fields(&third)));
        }
    }

    #[test]
    fn invalid_block_is_refused() {
        for block in [
            &b"\x80"[..],                // index 0
            b"\xbe",                     // an entry that is not in the table
            b"\xff\xff\xff\xff\xff\x0f", // an index that is too long
            b"\x00\x05abc",              // a string that is cut off
            b"\x00\x03abc",              // no value
            b"\x00\x81\x00\x00",         // no valid Huffman code
            b"\x3f\xe2\x1f",             // a table of 4097 bytes
            b"\x82\x20",                 // a new table size after a field
            b"\x40",                     // no name and no value
            b"\x7f",                     // half an integer
        ] {
            assert_eq!(decode(&mut Decoder::default(), block), Err(Error::Compression), "{block:?}");
        }
        assert_eq!(
            decode(&mut Decoder::default(), b"\x20\x3f\xe1\x1f\x82"),
            Ok(fields(&[(":method", "GET")]))
        );
    }

    #[test]
    fn too_large_list_is_cut_and_far_too_large_one_is_refused() {
        let mut block = b"\x40\x01a\x7f\xb1\x17".to_vec();
        block.extend([b'x'; 3120]);
        let mut decoder = Decoder::default();
        let mut list = Fields::default();
        decoder.decode(&[&block[..], &[0xbe; 19]].concat(), &mut list).unwrap();
        assert!(!list.is_over && list.fields.len() == 20, "{}", list.size);
        decoder.decode(&[0xbe; 30], &mut list).unwrap();
        assert!(list.is_over && list.fields.len() == 20 && list.size <= MAX_LIST);
        assert_eq!(decoder.decode(&[0xbe; 1000], &mut list), Err(Error::TooLarge));
        decoder.decode(b"\x82", &mut list).unwrap();
        assert!(!list.is_over && list.text.capacity() <= 4096);
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut decoder = Decoder::default();
        let mut list = Fields::default();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let length = random.usize(..64);
            let block: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let _read_or_refused = decoder.decode(&block, &mut list);
        }
    }
}
