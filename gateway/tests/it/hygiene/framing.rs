//! Cases of body framing: a request must have exactly one interpretation of its length.

use super::{Case, Passes, Refused, ThenRefused, case, run};

const HELLO: &[(&str, &str)] = &[("POST", "hello")];
const EMPTY: &[(&str, &str)] = &[("POST", "")];

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("a length", "9112 6.2", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", Passes(HELLO)),
    case("a length with spaces around it", "9110 5.5", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: \t 5 \r\nConnection: close\r\n\r\nhello", Passes(HELLO)),
    case("no length", "9112 6.3", b"POST {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Passes(EMPTY)),
    case("a length of a method without content", "9110 8.6", b"GET {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", Passes(&[("GET", "hello")])),
    case("a length in HTTP/1.0", "9112 6.3", b"POST {} HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Passes(HELLO)),
    case("a length with a sign", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", Refused(400)),
    case("a negative length", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\nhello", Refused(400)),
    case("a hexadecimal length", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", Refused(400)),
    case("a fractional length", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello", Refused(400)),
    case("an empty length", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello", Refused(400)),
    case("a length with a space in it", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello", Refused(400)),
    case("a length with a form feed", "9110 5.5", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\x0c\r\n\r\nhello", Refused(400)),
    case("a length with a no-break space", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\xa0\r\n\r\nhello", Refused(400)),
    case("a length that nobody can hold", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello", Refused(400)),
    case("a length that some take for octal", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\n0123456789", Refused(400)),
    case("a length of two zeros", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", Refused(400)),
    case("a length with a comma behind it", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5,\r\n\r\nhello", Refused(400)),
    case("a coding with an empty member", "9112 6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a list of equal lengths", "9110 8.6", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", Refused(400)),
    case("two equal lengths", "9112 6.3", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Refused(400)),
    case("two lengths", "9112 6.3", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\ncontent-length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX: 12345\r\n\r\n", Refused(400)),
    case("an empty length and another", "9112 6.3", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length:\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    case("a length and chunks", "9112 6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("chunks and a length", "9112 6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n23\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n", Refused(400)),
    case("chunks of GET, and a length", "9112 6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", Refused(400)),
    case("chunks in HTTP/1.0", "9112 6.1", b"POST {} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("chunks in other letters", "9112 7", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cHuNkEd\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passes(HELLO)),
    case("a coding that is not understood", "9112 6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    case("a coding that ends nowhere", "9112 6.3", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", Refused(400)),
    case("chunks that are not last", "9112 6.3", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Refused(400)),
    case("chunks twice", "9112 6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("chunks in two fields", "9112 6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("an empty coding", "9112 6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a coding with a parameter", "9112 7", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a quoted coding", "9112 7", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a coding behind a comma", "9112 7", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a coding behind a vertical tab", "9112 7", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a coding behind a no-break space", "9112 7", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a coding that is folded", "9112 5.2", b"POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("a coding behind a bare LF", "9112 2.2", b"POST {} HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("three requests in one go", "9112 9.3.2", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPOST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\nGET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Passes(&[("POST", "hello"), ("POST", "hello"), ("GET", "")])),
    case("a body that is longer than its length", "9112 6.3", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhello", Passes(&[("POST", "he")])),
    case("a body that is longer, with a line of its own", "9112 6.3", b"POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nhel:lo\r\n\r\n", ThenRefused(400)),
];

#[tokio::test]
async fn body_framing_is_validated() {
    run(CASES).await;
}
