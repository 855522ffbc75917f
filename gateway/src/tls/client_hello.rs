//! Parser for a ClientHello in bytes that were peeked at and not read. The parser finds the host that the client asks
//! for (SNI) and the protocol `acme-tls/1`, with which an ACME server validates a name (RFC 8737 4). The parser is
//! only used if the handshake depends on the host or on this protocol.

use super::acme::ACME_TLS;

/// Maximum size of a ClientHello that is examined. A larger one cannot be a validation, because validations offer one
/// name and one protocol.
const MAX_BYTES: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Extension type of `server_name` (RFC 6066 3).
const SERVER_NAME: u16 = 0;
const HOST_NAME: usize = 0;
/// Extension type of `application_layer_protocol_negotiation` (RFC 7301 3.1).
const ALPN: u16 = 16;

/// Result of [`classify`]: the kind of a connection, judged by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Handshake of an ACME validation.
    Validation,
    /// Any other handshake, or no handshake.
    Other,
    /// More bytes are needed to tell.
    Incomplete,
}

/// Classifies the first bytes of a connection.
pub fn classify(bytes: &[u8]) -> Hello {
    match whole(bytes) {
        Ok(hello) if offers(&hello, ACME_TLS) => Hello::Validation,
        Ok(_) => Hello::Other,
        Err(unfinished) => unfinished,
    }
}

/// Returns the host that the client asks for (SNI), if `bytes` hold a whole ClientHello that names one.
pub fn server_name(bytes: &[u8]) -> Option<String> {
    let hello = whole(bytes).ok()?;
    let mut names = HelloReader(HelloReader(extension(&hello, SERVER_NAME)?).vector(2)?);
    // The field contains a single name, and the only kind of name is a host name.
    if names.number(1)? != HOST_NAME {
        return None;
    }
    std::str::from_utf8(names.vector(2)?).ok().map(str::to_owned)
}

/// Returns the ClientHello at the beginning of `bytes`, without its message header.
fn whole(bytes: &[u8]) -> Result<Vec<u8>, Hello> {
    let mut message = Vec::new();
    let mut rest = bytes;
    // The message may be split into several records (RFC 8446 5.1).
    loop {
        if let Some(read) = body(&message) {
            return read.map(<[u8]>::to_vec).ok_or(Hello::Other);
        }
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || message.len() > MAX_BYTES {
            return Err(Hello::Other);
        }
        // Content type, version, length.
        let Some((&[_, _, _, high, low], after)) = rest.split_first_chunk::<5>() else {
            return Err(Hello::Incomplete);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MAX_BYTES {
            return Err(Hello::Other);
        }
        let Some((fragment, after)) = after.split_at_checked(length) else { return Err(Hello::Incomplete) };
        message.extend_from_slice(fragment);
        rest = after;
    }
}

/// Returns the body of a handshake message: `None` if it is incomplete, `Some(None)` if it is not a
/// ClientHello.
fn body(message: &[u8]) -> Option<Option<&[u8]>> {
    let mut head = HelloReader(message);
    if head.number(1)? != usize::from(CLIENT_HELLO) {
        return Some(None);
    }
    let length = head.number(3)?;
    if length > MAX_BYTES {
        return Some(None);
    }
    head.take(length).map(Some)
}

fn offers(hello: &[u8], protocol: &[u8]) -> bool {
    let listed = extension(hello, ALPN).and_then(|extension| HelloReader(extension).vector(2));
    listed.is_some_and(|protocols| HelloReader(protocols).lists(protocol))
}

/// Returns the extension `wanted` of a ClientHello (RFC 8446 4.1.2), if it is present.
fn extension(hello: &[u8], wanted: u16) -> Option<&[u8]> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let mut hello = HelloReader(hello);
    hello.take(VERSION_AND_RANDOM)?;
    hello.vector(1)?; // legacy_session_id
    hello.vector(2)?; // cipher_suites
    hello.vector(1)?; // legacy_compression_methods
    let mut extensions = HelloReader(hello.vector(2)?);
    loop {
        let kind = extensions.number(2)?;
        let extension = extensions.vector(2)?;
        if kind == usize::from(wanted) {
            return Some(extension);
        }
    }
}

/// Bytes that are left to read.
struct HelloReader<'b>(&'b [u8]);

impl<'b> HelloReader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads a big-endian number of `bytes` bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Reads a vector: a length of `length_bytes` bytes, then as many bytes.
    fn vector(&mut self, length_bytes: usize) -> Option<&'b [u8]> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }

    /// Returns true if the list contains `protocol`.
    fn lists(mut self, protocol: &[u8]) -> bool {
        std::iter::from_fn(|| self.vector(1)).any(|listed| listed == protocol)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use openssl::ssl::{SslConnector, SslMethod};

    use super::*;

    /// Stream that keeps the bytes written to it and has no bytes to read.
    #[derive(Debug, Default)]
    struct Recorder(Vec<u8>);

    impl Read for Recorder {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Ok(0)
        }
    }

    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns the ClientHello of OpenSSL, with `protocols` offered.
    fn hello(protocols: &[u8]) -> Vec<u8> {
        let mut tls = SslConnector::builder(SslMethod::tls_client()).unwrap();
        if !protocols.is_empty() {
            tls.set_alpn_protos(protocols).unwrap();
        }
        match tls.build().connect("a.example", Recorder::default()).unwrap_err() {
            openssl::ssl::HandshakeError::Failure(stream) => stream.get_ref().0.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn acme_protocol_is_classified_as_validation() {
        assert_eq!(classify(&hello(b"\x0aacme-tls/1")), Hello::Validation);
        assert_eq!(classify(&hello(b"\x02h2\x0aacme-tls/1")), Hello::Validation);
        for other in [&b""[..], b"\x02h2\x08http/1.1", b"\x0aacme-tls/2", b"\x0bacme-tls/1x"] {
            assert_eq!(classify(&hello(other)), Hello::Other, "{other:?}");
        }
        assert_eq!(classify(b"GET / HTTP/1.1\r\n\r\n"), Hello::Other);
    }

    #[test]
    fn server_name_of_client_hello_is_returned() {
        assert_eq!(server_name(&hello(b"\x02h2")).as_deref(), Some("a.example"));
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n\r\n"), None);
    }

    #[test]
    fn every_prefix_of_client_hello_is_incomplete() {
        let whole = hello(b"\x0aacme-tls/1");
        for end in 0..whole.len() {
            assert_eq!(classify(&whole[..end]), Hello::Incomplete, "{end}");
        }
    }

    #[test]
    fn client_hello_split_into_records_is_reassembled() {
        let whole = hello(b"\x0aacme-tls/1");
        let records: Vec<u8> = whole[5..]
            .chunks(7)
            .flat_map(|part| [&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()], part].concat())
            .collect();
        assert_eq!(classify(&records), Hello::Validation);
    }

    #[test]
    fn corrupt_bytes_cause_no_panic() {
        let whole = hello(b"\x0aacme-tls/1");
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                classify(&bytes);
                server_name(&bytes);
            }
        }
        let endless = [22, 3, 1, 0, 1, 1].repeat(20_000);
        assert_eq!(classify(&endless), Hello::Other);
        assert_eq!(classify(&[22, 3, 1, 0, 0].repeat(1000)), Hello::Other, "empty records without end");
    }
}
