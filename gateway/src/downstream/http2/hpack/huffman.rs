//! Huffman code of HPACK (RFC 7541 5.2 and appendix B). The code is canonical: symbols whose codes have the same length
//! have consecutive codes, in order. So the lengths alone define the code. The decoder finds the length of the next
//! code by comparison with the last code of each length.

/// Length of the code of each byte and of the end-of-string symbol, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;

static CODE: Code = Code::new();

struct Code {
    /// For each length, the first code that is longer, with its bits at the left of 32 bits.
    beyond: [u64; LONGEST + 1],
    /// First code of each length. `start` has the index in `symbols` of that code's byte.
    first: [u32; LONGEST + 1],
    start: [usize; LONGEST + 1],
    /// Bytes in the order of their codes. The end-of-string symbol would be the last, but it is not a byte.
    symbols: [u8; 256],
}

impl Code {
    const fn new() -> Self {
        let mut code = Code {
            beyond: [0; LONGEST + 1],
            first: [0; LONGEST + 1],
            start: [0; LONGEST + 1],
            symbols: [0; 256],
        };
        let (mut length, mut next, mut found) = (SHORTEST, 0_u32, 0);
        while length <= LONGEST {
            code.first[length] = next;
            code.start[length] = found;
            let mut symbol = 0;
            while symbol < 256 {
                if LENGTHS[symbol] as usize == length {
                    code.symbols[found] = symbol as u8;
                    found += 1;
                    next += 1;
                }
                symbol += 1;
            }
            code.beyond[length] = (next as u64) << (32 - length);
            next <<= 1;
            length += 1;
        }
        code
    }
}

/// Decodes `encoded`, and appends the text to `to`. Returns `None` if the code or its padding is invalid.
pub(super) fn decode(encoded: &[u8], to: &mut Vec<u8>) -> Option<()> {
    let mut bytes = encoded.iter();
    // `bits` has the bits that are not decoded yet, at the right.
    let (mut bits, mut count) = (0_u64, 0_usize);
    loop {
        while count <= 32 {
            let Some(byte) = bytes.next() else { break };
            bits = bits << 8 | u64::from(*byte);
            count += 8;
        }
        // The next 32 bits. Missing bits are filled with ones, like padding.
        let window = if count >= 32 {
            bits >> (count - 32)
        } else {
            (bits << (32 - count)) | (u64::from(u32::MAX) >> count)
        };
        let window = window & u64::from(u32::MAX);
        let length = (SHORTEST..=LONGEST).find(|length| window < CODE.beyond[*length]);
        match length.filter(|length| *length <= count) {
            Some(length) => {
                let offset = usize::try_from(window >> (32 - length)).ok()? - CODE.first[length] as usize;
                to.push(*CODE.symbols.get(CODE.start[length] + offset)?);
                count -= length;
                bits &= (1 << count) - 1;
            }
            // Valid padding is the beginning of the end-of-string symbol, and shorter than a byte.
            None => return (count < 8 && bits == (1 << count) - 1).then_some(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(encoded: &[u8]) -> Option<String> {
        let mut decoded = Vec::new();
        decode(encoded, &mut decoded)?;
        Some(String::from_utf8_lossy(&decoded).into_owned())
    }

    #[test]
    fn examples_of_rfc_7541_are_decoded() {
        // RFC 7541 C.4 and C.6.
        for (encoded, expected) in [
            (&b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", "custom-key"),
            (b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", "custom-value"),
            (b"\x64\x02", "302"),
            (b"\xae\xc3\x77\x1a\x4b", "private"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (b"", ""),
        ] {
            assert_eq!(text(encoded).as_deref(), Some(expected));
        }
    }

    #[test]
    fn each_byte_has_a_code_of_its_own() {
        for symbol in 0..=255_u8 {
            let at = CODE.symbols.iter().position(|other| *other == symbol).unwrap();
            let length = usize::from(LENGTHS[usize::from(symbol)]);
            let code = u64::from(CODE.first[length]) + (at - CODE.start[length]) as u64;
            // Padding of ones follows the code, up to a whole byte.
            let bytes = length.div_ceil(8);
            let padded = (code << (8 * bytes - length)) | ((1 << (8 * bytes - length)) - 1);
            let mut decoded = Vec::new();
            decode(&padded.to_be_bytes()[8 - bytes..], &mut decoded).unwrap();
            assert_eq!(decoded, [symbol]);
        }
    }

    #[test]
    fn invalid_code_or_padding_is_refused() {
        // Padding of zeros, padding of a whole byte, the whole end-of-string symbol, and an incomplete code.
        for encoded in
            [&b"\x18"[..], b"\x64\x02\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\xfc", b"\xff", b"\xfe"]
        {
            assert_eq!(text(encoded), None, "{encoded:?}");
        }
    }
}
