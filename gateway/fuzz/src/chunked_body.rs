//! Checks of the framing of a chunked body. A server or proxy after the gateway must find the same end of the body.

use gateway::util::http1::chunked::Chunked;

/// Checks that an accepted body has one end. The end depends neither on the pieces in which the bytes arrive
/// nor on the bytes that follow. Two other readers find the same end: one requires lines to end with CRLF, the
/// other accepts LF alone.
pub fn check(input: &[u8]) {
    let Ok(Some(end)) = Chunked::default().read(input) else { return };
    let body = &input[..end];
    let said = body.escape_ascii();
    let mut reader = Chunked::default();
    for (at, byte) in body.iter().enumerate() {
        let expected = (at + 1 == end).then_some(1);
        assert!(matches!(reader.read(&[*byte]), Ok(found) if found == expected), "after {at} bytes: {said}");
    }
    assert!(
        matches!(Chunked::default().read(body), Ok(Some(same)) if same == end),
        "it needs what follows: {said}"
    );
    for line_end in [&b"\r\n"[..], b"\n"] {
        assert_eq!(
            read_lines(input, line_end).map(|(end, _)| end),
            Some(end),
            "lines that end with {}: {said}",
            line_end.escape_ascii()
        );
    }
}

/// Returns the end of the body and its data, as an independent reader finds them. The reader stops at the empty
/// line after the last chunk.
pub(crate) fn read_lines(body: &[u8], line_end: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (mut at, mut data) = (0, Vec::new());
    let line = |at: &mut usize| {
        let rest = body.get(*at..)?;
        let length = rest.windows(line_end.len()).position(|window| window == line_end)?;
        *at += length + line_end.len();
        Some(rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]))
    };
    loop {
        let size = line(&mut at)?;
        let digits = size.split(|byte| !byte.is_ascii_hexdigit()).next()?;
        match usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()? {
            0 => break,
            size => {
                let chunk = body.get(at..at.checked_add(size)?)?;
                data.extend_from_slice(chunk);
                at += size;
            }
        }
        // An empty line must follow the data of the chunk.
        if !line(&mut at)?.is_empty() {
            return None;
        }
    }
    while !line(&mut at)?.is_empty() {}
    Some((at, data))
}
