//! Cases of malformed and well-formed chunked bodies.

use super::{Case, Passes, Refused, case, run};

const HELLO: &[(&str, &str)] = &[("POST", "hello")];

macro_rules! chunked {
    ($name:literal, $rfc:literal, $body:literal, $expect:expr) => {
        case(
            $name,
            $rfc,
            concat_bytes(concat!(
                "POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
                $body
            )),
            $expect,
        )
    };
}

const fn concat_bytes(text: &'static str) -> &'static [u8] {
    text.as_bytes()
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    chunked!("two chunks", "9112 7.1", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", Passes(HELLO)),
    chunked!("a size with zeros before it", "9112 7.1", "0005\r\nhello\r\n000\r\n\r\n", Passes(HELLO)),
    chunked!("a size in capitals", "9112 7.1", "A\r\n0123456789\r\n0\r\n\r\n", Passes(&[("POST", "0123456789")])),
    chunked!("an extension", "9112 7.1.1", "5;a=b;c\r\nhello\r\n0;d\r\n\r\n", Passes(HELLO)),
    chunked!("a quoted extension", "9112 7.1.1", "5;a=\"b;\\\"c\"\r\nhello\r\n0\r\n\r\n", Passes(HELLO)),
    chunked!("a trailer", "9112 7.1.2", "5\r\nhello\r\n0\r\nX-A: b\r\n\r\n", Passes(HELLO)),
    chunked!("no size", "9112 7.1", "\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a signed size", "9112 7.1", "+5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a negative size", "9112 7.1", "-5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a size that says it is hexadecimal", "9112 7.1", "0x5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a space before a size", "9112 7.1", " 5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a space behind a size", "9112 7.1", "5 \r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a tab behind a size", "9112 7.1", "5\t\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a size with an underscore", "9112 7.1", "0_5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a size that is no number", "9112 7.1", "xyz\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a size that nobody can hold", "9112 7.1", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a size of all bits", "9112 7.1", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a size that ends with a bare LF", "9112 7.1", "5\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a size that ends with a bare CR", "9112 7.1", "5\rhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("an extension that ends with a bare LF", "9112 7.1.1", "2;\nxx\r\n23\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n", Refused(400)),
    chunked!("a bare CR in an extension", "9112 7.1.1", "5;a\rb\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("an extension without a name", "9112 7.1.1", "5;\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("an extension without a value", "9112 7.1.1", "5;a=\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("an extension that is not closed", "9112 7.1.1", "5;a=\"b\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("an extension without a semicolon", "9112 7.1.1", "5 a=b\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a control in an extension", "9112 7.1.1", "5;a=\x01\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a chunk that is longer than it says", "9112 7.1", "4\r\nhello\r\n0\r\n\r\n", Refused(400)),
    chunked!("a chunk that ends with a bare LF", "9112 7.1", "5\r\nhello\n0\r\n\r\n", Refused(400)),
    chunked!("a chunk that ends nowhere", "9112 7.1", "5\r\nhello0\r\n\r\n", Refused(400)),
    chunked!("a trailer without a colon", "9112 7.1.2", "5\r\nhello\r\n0\r\nrubbish\r\n\r\n", Refused(400)),
    chunked!("a trailer with a space before its colon", "9112 7.1.2", "5\r\nhello\r\n0\r\nA : b\r\n\r\n", Refused(400)),
    chunked!("a trailer that is folded", "9112 7.1.2", "5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n", Refused(400)),
    chunked!("a trailer that ends with a bare LF", "9112 7.1.2", "5\r\nhello\r\n0\r\nA: b\n\r\n", Refused(400)),
    chunked!("a body that ends with a bare LF", "9112 7.1", "5\r\nhello\r\n0\r\n\n", Refused(400)),
    chunked!("a trailer that frames", "9110 6.5.1", "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", Refused(400)),
    chunked!("a trailer that encodes", "9110 6.5.1", "5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n", Refused(400)),
    chunked!("a trailer that names a host", "9110 6.5.1", "5\r\nhello\r\n0\r\nHost: b\r\n\r\n", Refused(400)),
    chunked!("a request in place of a chunk", "9112 7.1", "INVALID!\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
];

#[tokio::test]
async fn chunked_bodies_are_validated() {
    run(CASES).await;
}
