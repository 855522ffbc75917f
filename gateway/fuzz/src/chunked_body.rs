//! The framing of a chunked body, which everybody behind the gateway must read as the gateway does.

use gateway::util::http1::chunked::Chunked;

/// A body that is taken ends where it ends, in whatever pieces it comes and whatever follows it; and other readers, one
/// that wants lines to end with CRLF and one that is content with LF, find the same end.
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

/// Where the body ends, and what is in it, for whoever reads on until an empty line behind the last chunk.
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
        // What ends the chunk is an empty line.
        if !line(&mut at)?.is_empty() {
            return None;
        }
    }
    while !line(&mut at)?.is_empty() {}
    Some((at, data))
}
