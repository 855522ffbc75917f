//! Checks of HTTP/1 responses of a backend. Pingora must read them in the same way as the gateway.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures::FutureExt as _;
use gateway::proxy::errors::malformed_response;
use gateway::upstream::connection::head::{Framing, Head, HeadReader};
use gateway::upstream::connection::{BackendStream, HeadLimits, ResponseLimits};
use gateway::upstream::response_check;
use gateway::util::http1::Fault;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::client::HttpSession;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use crate::chunked_body;

/// Small limits, which a short input can exceed.
const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 12 };

/// Largest number of interim responses.
const MAX_INTERIM: usize = 32;

/// Checks that an accepted head does not depend on the pieces in which it arrives, and that a strict and a
/// lenient reader find the same in it. Pingora must read the same response as these readers, and may fail only
/// if the inspector refuses it. The length that the client gets must have one meaning.
pub fn check(input: &[u8]) {
    let read = read_head(input, input.len().max(1));
    assert_eq!(read.ok(), read_head(input, 1).ok(), "in pieces it is another: {}", input.escape_ascii());
    match read {
        Ok(Some(head)) => is_what_others_read(&input[..head.length], head),
        Ok(None) => assert!(input.len() <= LIMITS.bytes, "it may be of any size: {}", input.escape_ascii()),
        Err(_) => {}
    }
    for method in ["GET", "HEAD"] {
        is_read_by_pingora(input, method);
    }
}

fn read_head(input: &[u8], size: usize) -> Result<Option<Head>, Fault> {
    let mut reader = HeadReader::default();
    let ends = (size..input.len()).step_by(size).chain([input.len()]);
    for end in ends {
        if let Some(head) = reader.read(&input[..end], &LIMITS)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

fn is_what_others_read(bytes: &[u8], head: Head) {
    let said = bytes.escape_ascii();
    let line_ends = bytes.windows(2).filter(|pair| *pair == b"\r\n").count();
    let is_strict =
        [b'\r', b'\n'].iter().all(|end| bytes.iter().filter(|byte| *byte == end).count() == line_ends);
    assert!(is_strict, "a line ends otherwise than all: {said}");
    let mut lenient = httparse::ParserConfig::default();
    // The same options as Pingora's parser.
    lenient.allow_spaces_after_header_name_in_responses(true);
    lenient.allow_obsolete_multiline_headers_in_responses(true);
    for parser in [httparse::ParserConfig::default(), lenient] {
        let Some(read) = ReadByOthers::of(&parser, bytes) else { panic!("others find no head: {said}") };
        assert_eq!(read.length, bytes.len(), "others find another end: {said}");
        assert_eq!(read.status, head.status, "{said}");
        assert_eq!(read.framing(), Some(head.framing), "others see another body: {said}");
        assert!(head.closes || !read.says("connection", b"close"), "it closes the connection: {said}");
        let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let fields = lines.skip(1).filter(|line| !line.is_empty()).map(split);
        let fields: Vec<_> = fields.collect();
        assert_eq!(read.fields, fields, "others find other fields: {said}");
        for (name, value) in read.fields {
            let has_control =
                [name, value].iter().any(|text| text.iter().any(|byte| b"\r\n\0".contains(byte)));
            assert!(!has_control && !name.is_empty(), "it has the field {}: {said}", name.escape_ascii());
        }
    }
}

/// Splits a line at its first colon.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    (&line[..colon], line.get(colon + 1..).unwrap_or_default().trim_ascii())
}

/// Head as another reader parses it.
struct ReadByOthers<'b> {
    length: usize,
    status: u16,
    is_http_10: bool,
    fields: Vec<(&'b [u8], &'b [u8])>,
}

impl<'b> ReadByOthers<'b> {
    fn of(parser: &httparse::ParserConfig, bytes: &'b [u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; LIMITS.fields];
        let mut response = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = parser.parse_response(&mut response, bytes) else {
            return None;
        };
        let fields = response.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
        Some(ReadByOthers { length, status: response.code?, is_http_10: response.version == Some(0), fields })
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        let fields = self.fields.iter().filter(move |field| field.0.eq_ignore_ascii_case(name.as_bytes()));
        fields.flat_map(|field| field.1.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    }

    fn says(&self, name: &str, option: &[u8]) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(option))
    }

    /// Returns the framing of the body, if the head has only one interpretation.
    fn framing(&self) -> Option<Framing> {
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        let (lengths, codings): (Vec<_>, Vec<_>) =
            (self.values("content-length").collect(), self.values("transfer-encoding").collect());
        match (&lengths[..], &codings[..]) {
            ([], []) => Some(Framing::Close),
            ([length, more @ ..], []) => {
                let is_one = more.iter().all(|other| number(other) == number(length))
                    && lengths.iter().all(|length| length.iter().all(u8::is_ascii_digit));
                number(length).filter(|_| is_one).map(Framing::Length)
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !self.is_http_10 => {
                Some(Framing::Chunked)
            }
            _ => None,
        }
    }

    fn head(&self) -> (u16, HeaderMap) {
        let field = |(name, value): &(&[u8], &[u8])| {
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        };
        let mut map = HeaderMap::new();
        for (name, value) in self.fields.iter().filter_map(field) {
            map.append(name, value);
        }
        (self.status, map)
    }
}

/// Response with the interim responses before it, as far as they were read.
#[derive(Debug, Default, PartialEq)]
struct Response {
    heads: Vec<(u16, HeaderMap)>,
    body: Vec<u8>,
}

/// End of a response.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The last byte was read.
    Whole,
    /// The response was refused.
    Refused,
    /// The connection was closed before the last byte.
    CutOff,
}

fn is_read_by_pingora(input: &[u8], method: &'static str) {
    let whole = read(input, method, 16 * 1024);
    let said = input.escape_ascii();
    for size in [1, 7] {
        let pieces = read(input, method, size);
        // The reader passes on nothing of a piece with a fault, so larger pieces may deliver less.
        let is_same = pieces == whole
            || (pieces.1, &whole.1) == (End::Refused, &End::Refused)
                && pieces.0.heads.starts_with(&whole.0.heads)
                && pieces.0.body.starts_with(&whole.0.body);
        assert!(
            is_same,
            "{method}, in pieces of {size}: {:?}, and else {whole:?}: {said}",
            read(input, method, size)
        );
    }
    if whole.1 == End::Whole {
        let Some(expected) = response(input, method) else { panic!("{method}: others find none: {said}") };
        assert_eq!(whole.0, expected, "{method}: others read another: {said}");
    }
}

/// Returns the response that a strict reader finds.
fn response(input: &[u8], method: &str) -> Option<Response> {
    let (mut rest, mut heads) = (input, Vec::new());
    loop {
        let head = ReadByOthers::of(&httparse::ParserConfig::default(), rest)?;
        rest = &rest[head.length..];
        heads.push(head.head());
        let body = match (head.status, head.framing()?) {
            (100 | 102..=199, _) if heads.len() <= MAX_INTERIM => continue,
            (100..=199, _) => return (head.status == 101).then_some(Response { heads, body: Vec::new() }),
            (204 | 304, _) => Vec::new(),
            _ if method == "HEAD" => Vec::new(),
            (_, Framing::Close) => rest.to_vec(),
            (_, Framing::Length(length)) => rest.get(..usize::try_from(length).ok()?)?.to_vec(),
            (_, Framing::Chunked) => chunked_body::read_lines(rest, b"\r\n")?.1,
        };
        return Some(Response { heads, body });
    }
}

/// Returns the response that Pingora reads if it arrives in pieces of `size` bytes.
fn read(input: &[u8], method: &'static str, size: usize) -> (Response, End) {
    let (mut backend, ours) = duplex(64 * 1024);
    let stream = BackendStream::new(Box::new(ours), ResponseLimits::new(|| LIMITS));
    let mut session = HttpSession::new(Box::new(stream));
    let mut response = Response::default();
    let mut pieces = input.chunks(size);
    let (end, error) = {
        let mut reading = pin!(read_to_end(&mut session, method, &mut response));
        loop {
            match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) => break (End::Whole, None),
                Poll::Ready(Err(error)) => break (End::Refused, Some(error)),
                Poll::Pending => match pieces.next() {
                    Some(piece) => write(&mut backend, piece),
                    None => {
                        drop(backend);
                        break match reading.now_or_never() {
                            Some(Ok(())) => (End::Whole, None),
                            Some(Err(_)) => (End::CutOff, None),
                            None => panic!("it waits for more than all: {}", input.escape_ascii()),
                        };
                    }
                },
            }
        }
    };
    if let Some(error) = error {
        let is_ours = malformed_response(&error).is_some();
        assert!(is_ours, "Pingora refuses what has passed ({error}): {}", input.escape_ascii());
    }
    (response, end)
}

fn write(backend: &mut DuplexStream, piece: &[u8]) {
    let written = backend.write_all(piece).now_or_never();
    assert!(matches!(written, Some(Ok(()))), "Pingora does not read what has come: {written:?}");
}

async fn read_to_end(
    session: &mut HttpSession,
    method: &'static str,
    response: &mut Response,
) -> pingora::Result<()> {
    let mut request = RequestHeader::build(method, b"/", None)?;
    request.insert_header("Host", "a")?;
    session.write_request_header(Box::new(request)).await?;
    loop {
        let head = session.read_resp_header_parts().await?;
        response.heads.push((head.status.as_u16(), head.headers.clone()));
        if head.status.as_u16() == 101 {
            // A protocol switch that the request did not ask for: there is no body to read.
            return Ok(());
        }
        has_one_length(*head);
        if !response.heads.last().is_some_and(|(status, _)| (100..=199).contains(status)) {
            break;
        }
    }
    while let Some(part) = session.read_body_bytes().await? {
        response.body.extend_from_slice(&part);
    }
    Ok(())
}

/// Checks that the head for the client has at most one length, or is chunked.
fn has_one_length(mut head: ResponseHeader) {
    if let Err(error) = response_check::check(&mut head, false, &LIMITS) {
        panic!("{head:?} is refused behind Pingora: {error}");
    }
    let lengths: Vec<_> = head.headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes).collect();
    let is_plain =
        |length: &[u8]| length == b"0" || (length.iter().all(u8::is_ascii_digit) && length[0] != b'0');
    let is_one = match (&lengths[..], head.headers.get_all(TRANSFER_ENCODING).iter().count()) {
        ([], 0 | 1) => true,
        ([length], 0) => is_plain(length),
        _ => false,
    };
    assert!(is_one, "{head:?} says its length in several ways");
}
