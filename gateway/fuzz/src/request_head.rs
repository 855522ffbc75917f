//! Checks of HTTP/1 request heads. A server or proxy after the gateway must read a head in the same way as the
//! gateway.

use gateway::config::Limits;
use gateway::downstream::http1::head::{Framing, Head, HeadReader};
use gateway::policy::head_size::HeadSize;

/// Checks that an accepted head has one end, which depends neither on the pieces in which the bytes arrive nor
/// on the bytes that follow. Another, lenient reader must find the same end and the same body framing.
pub fn check(input: &[u8]) {
    let bounds = HeadSize::from(&Limits::default());
    let Ok(Some(head)) = HeadReader::default().read(input, &bounds) else { return };
    let said = input.escape_ascii();
    assert!(head.length <= input.len(), "it ends where nothing is: {said}");
    let mut reader = HeadReader::default();
    for end in 0..head.length {
        assert!(
            matches!(reader.read(&input[..end], &bounds), Ok(None)),
            "after {end} bytes it is whole: {said}"
        );
    }
    assert_eq!(
        reader.read(&input[..head.length], &bounds),
        Ok(Some(head)),
        "in pieces it is another: {said}"
    );
    read_by_others(&input[..head.length], head);
}

fn read_by_others(bytes: &[u8], head: Head) {
    let said = bytes.escape_ascii();
    let mut fields = [httparse::EMPTY_HEADER; 1024];
    let mut request = httparse::Request::new(&mut fields);
    let end = request.parse(bytes);
    assert_eq!(end, Ok(httparse::Status::Complete(bytes.len())), "another reader finds no such head: {said}");
    let values = |name: &str| -> Vec<&[u8]> {
        let fields = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value).collect()
    };
    let number = |value: &[u8]| std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok());
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) => Some(Framing::Length(0)),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => number(length).map(Framing::Length),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && request.version == Some(1) => {
            Some(Framing::Chunked)
        }
        _ => None,
    };
    assert_eq!(framing, Some(head.framing), "another reader sees another body: {said}");
    let hosts = values("host").len();
    assert!(hosts == 1 || (hosts == 0 && request.version == Some(0)), "it is for {hosts} hosts: {said}");
}
