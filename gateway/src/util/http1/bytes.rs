//! Classes of bytes in an HTTP/1 message. They are in a table, so that each byte costs one lookup.

const TOKEN: u8 = 1;
const VALUE: u8 = 2;

static KINDS: [u8; 256] = kinds();

const fn kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = kind(byte as u8);
        byte += 1;
    }
    kinds
}

const fn kind(byte: u8) -> u8 {
    let mut kind = 0;
    // Characters of a token (RFC 9110 5.6.2).
    if byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_')
        || matches!(byte, b'`' | b'|' | b'~')
    {
        kind |= TOKEN;
    }
    // Characters of a field value (RFC 9110 5.5): visible characters, spaces, tabs, and bytes above ASCII.
    if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
        kind |= VALUE;
    }
    kind
}

fn all(bytes: &[u8], wanted: u8) -> bool {
    bytes.iter().all(|byte| KINDS[usize::from(*byte)] & wanted != 0)
}

/// Returns true if `bytes` are a token (RFC 9110 5.6.2): a method, or the name of a field.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Returns true if a token may contain `byte`.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    KINDS[usize::from(byte)] & TOKEN != 0
}

/// Returns true if `bytes` may be the value of a field (RFC 9110 5.5).
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    all(bytes, VALUE)
}

/// Returns true if the value of a field may contain `byte`.
pub(crate) fn is_value_byte(byte: u8) -> bool {
    KINDS[usize::from(byte)] & VALUE != 0
}
