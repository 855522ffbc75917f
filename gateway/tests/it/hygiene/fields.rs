//! Cases of header fields: their syntax and their values.

use super::{Answered, Case, Passes, Refused, case, run};

const GET: &[(&str, &str)] = &[("GET", "")];

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("an empty value", "9112 5", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A:\r\nConnection: close\r\n\r\n", Passes(GET)),
    case("tabs and spaces around a value", "9112 5.1", b"GET {} HTTP/1.1\r\nHost:\t a \t\r\nX: a\tb\r\nConnection: close\r\n\r\n", Passes(GET)),
    case("a value beyond ASCII", "9110 5.5", b"GET {} HTTP/1.1\r\nHost: a\r\nX: \xc3\xa4\xff\r\nConnection: close\r\n\r\n", Passes(GET)),
    case("a space before the colon", "9112 5.1", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n", Refused(400)),
    case("a tab before the colon", "9112 5.1", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A\t: b\r\n\r\n", Refused(400)),
    case("no name", "9112 5", b"GET {} HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Refused(400)),
    case("no colon", "9112 5", b"GET {} HTTP/1.1\r\nHost: a\r\nrubbish\r\n\r\n", Refused(400)),
    case("a name with a slash", "9110 5.1", b"GET {} HTTP/1.1\r\nHost: a\r\nX/A: b\r\n\r\n", Refused(400)),
    case("a name with a bracket", "9110 5.1", b"GET {} HTTP/1.1\r\nHost: a\r\nX[A: b\r\n\r\n", Refused(400)),
    case("a name with a NUL", "9110 5.1", b"GET {} HTTP/1.1\r\nHost: a\r\nX\0A: b\r\n\r\n", Refused(400)),
    case("a name beyond ASCII", "9110 5.1", b"GET {} HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: b\r\n\r\n", Refused(400)),
    case("a pseudo-header field", "9113 8.3", b"GET {} HTTP/1.1\r\nHost: a\r\n:authority: b\r\n\r\n", Refused(400)),
    case("a value with a NUL", "9110 5.5", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", Refused(400)),
    case("a value with a control", "9110 5.5", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A: b\x01c\r\n\r\n", Refused(400)),
    case("a value with a DEL", "9110 5.5", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A: b\x7fc\r\n\r\n", Refused(400)),
    case("a value with a bare CR", "9112 2.2", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n", Refused(400)),
    case("a line that ends with a bare LF", "9112 2.2", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A: b\nX-B: c\r\n\r\n", Refused(400)),
    case("a line that ends with two CR", "9112 2.2", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A: b\r\r\n\r\n", Refused(400)),
    case("a head that ends with a bare LF", "9112 2.2", b"GET {} HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
    case("nothing but bare LF", "9112 2.2", b"GET {} HTTP/1.1\nHost: a\n\n", Refused(400)),
    case("a value over two lines", "9112 5.2", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", Refused(400)),
    case("the same with a tab", "9112 5.2", b"GET {} HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tc\r\n\r\n", Refused(400)),
    case("a first line that is folded", "9112 2.2", b"GET {} HTTP/1.1\r\n Host: b\r\nHost: a\r\n\r\n", Refused(400)),
    case("an expectation that is met", "9110 10.1.1", b"POST {} HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", Passes(&[("POST", "hi")])),
    case("no expectation", "9110 5.6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nExpect:\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", Passes(&[("POST", "hi")])),
    case("empty expectations", "9110 5.6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nExpect: , ,\r\nExpect:\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", Passes(&[("POST", "hi")])),
    case("an expectation with an empty member", "9110 5.6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nExpect: ,100-continue,\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", Passes(&[("POST", "hi")])),
    case("another expectation behind an empty member", "9110 5.6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nExpect: , teapots\r\nConnection: close\r\n\r\n", Answered(417)),
    case("empty options of Connection", "9110 5.6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: , close,,\r\nConnection:\r\n\r\n", Passes(GET)),
    case("another expectation", "9110 10.1.1", b"GET {} HTTP/1.1\r\nHost: a\r\nExpect: teapots\r\nConnection: close\r\n\r\n", Answered(417)),
    case("several expectations", "9110 10.1.1", b"GET {} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: x\r\nConnection: close\r\n\r\n", Answered(417)),
    case("an expectation of HTTP/1.0", "9110 10.1.1", b"POST {} HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", Passes(&[("POST", "hi")])),
    case("Connection with an option", "9110 7.6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\r\n", Passes(GET)),
    case("Connection names Host", "9110 7.6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", Refused(400)),
    case("Connection names Content-Length", "9110 7.6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello", Refused(400)),
    case("Connection names Transfer-Encoding", "9110 7.6.1", b"POST {} HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    case("Connection names X-Forwarded-For", "9110 7.6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for\r\n\r\n", Refused(400)),
    case("Connection names Authorization", "9110 7.6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\nAuthorization: Basic YTpi\r\n\r\n", Refused(400)),
    case("Connection with what is no token", "9110 7.6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: \"close\"\r\n\r\n", Refused(400)),
    case("Connection with many options", "9110 7.6.1", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: a,b,c,d,e,f,g,h,i,j,k\r\n\r\n", Refused(400)),
    case("Content_Length beside Content-Length", "9112 11.2", b"POST {} HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    case("X_Forwarded_For", "9110 16.3.1", b"GET {} HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 192.0.2.1\r\n\r\n", Refused(400)),
    case("two origins", "6454 7.3", b"GET {} HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nOrigin: https://b.example\r\n\r\n", Refused(400)),
    case("an upgrade that Connection does not name", "9110 7.8", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", Passes(GET)),
    case("the same with a body, and a request behind it", "9110 7.8", b"POST {} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhelloGET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Passes(&[("POST", "hello"), ("GET", "")])),
    case("another protocol is not asked for", "9110 7.8", b"GET {} HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n", Passes(GET)),
];

#[tokio::test]
async fn header_fields_are_validated() {
    run(CASES).await;
}
