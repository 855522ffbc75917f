//! PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`). A load balancer that forwards bytes sends a
//! header first, which names the client.
//!
//! A listener that expects this header requires it on every connection. If the header were optional, any client could
//! send one itself, and choose its address.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Maximum length of a version 1 header, including the line end.
const MAX_LINE: usize = 107;

/// Maximum length of a version 2 header after its fixed part: 216 bytes for addresses, and more for extensions.
const MAX_REST: usize = 4096;

/// Length of the fixed part of a version 2 header: the signature, the kind of the header, and the length of the rest.
const FIXED: usize = 16;

/// Origin of a connection, according to the load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBehalfOf {
    /// The load balancer itself connects, to check that the gateway is available.
    Itself,
    /// A client connects, but the load balancer cannot tell its address.
    Unknown,
    /// A client with this address connects.
    Client(SocketAddr),
}

/// Reads the PROXY header from `stream`, and no byte after the header.
///
/// # Errors
/// Returns an error if the header is missing or malformed (`InvalidData`), or if the stream fails.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<OnBehalfOf> {
    // The headers of both versions are at least this long: "PROXY UNKNOWN\r\n" has 15 bytes.
    let mut start = [0; v2::PROTOCOL_PREFIX.len()];
    stream.read_exact(&mut start).await?;
    if start == *v2::PROTOCOL_PREFIX {
        version_2(stream, &start).await
    } else {
        version_1(stream, &start).await
    }
}

async fn version_1(stream: &mut (impl AsyncRead + Unpin), start: &[u8]) -> io::Result<OnBehalfOf> {
    if !start.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return Err(malformed("it does not begin with a PROXY header"));
    }
    let mut line = start.to_vec();
    // The line is read byte by byte, because the bytes after it belong to the next reader.
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(malformed("its PROXY line does not end"));
        }
        line.push(stream.read_u8().await?);
    }
    let header = v1::Header::try_from(line.as_slice()).map_err(|error| malformed(&error.to_string()))?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => OnBehalfOf::Unknown,
        v1::Addresses::Tcp4(of) => OnBehalfOf::Client((of.source_address, of.source_port).into()),
        v1::Addresses::Tcp6(of) => OnBehalfOf::Client((of.source_address, of.source_port).into()),
    })
}

async fn version_2(stream: &mut (impl AsyncRead + Unpin), start: &[u8]) -> io::Result<OnBehalfOf> {
    let mut header = start.to_vec();
    header.resize(FIXED, 0);
    stream.read_exact(&mut header[start.len()..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]));
    if rest > MAX_REST {
        return Err(malformed("its PROXY header is too long"));
    }
    header.resize(FIXED + rest, 0);
    stream.read_exact(&mut header[FIXED..]).await?;
    let header = v2::Header::try_from(header.as_slice()).map_err(|error| malformed(&error.to_string()))?;
    match (header.command, header.protocol, header.addresses) {
        (v2::Command::Local, ..) => Ok(OnBehalfOf::Itself),
        (_, _, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Ok(OnBehalfOf::Unknown),
        (_, v2::Protocol::Datagram, _) => Err(malformed("its PROXY header is for datagrams")),
        (.., v2::Addresses::IPv4(of)) => Ok(OnBehalfOf::Client((of.source_address, of.source_port).into())),
        (.., v2::Addresses::IPv6(of)) => Ok(OnBehalfOf::Client((of.source_address, of.source_port).into())),
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the result of reading a header from `bytes`, and the bytes after the header.
    async fn outcome(bytes: &[u8]) -> (Result<String, io::ErrorKind>, Vec<u8>) {
        let mut stream = bytes;
        let read = read(&mut stream).await.map(|found| match found {
            OnBehalfOf::Client(address) => address.to_string(),
            other => format!("{other:?}"),
        });
        (read.map_err(|error| error.kind()), stream.to_vec())
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_the_rest() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0, 80];
        let v6: Vec<u8> = [[0; 15].as_slice(), &[1], &[0; 15], &[2], &[0x30, 0x39, 0, 80]].concat();
        let extended: Vec<u8> = [v4.as_slice(), &[4, 0, 1, 42]].concat();
        for (header, said) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 80\r\n".to_vec(), "192.0.2.1:12345"),
            (b"PROXY TCP6 ::1 ::2 12345 80\r\n".to_vec(), "[::1]:12345"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "Unknown"),
            (b"PROXY UNKNOWN anything at all\r\n".to_vec(), "Unknown"),
            (binary(0x21, 0x11, &v4), "192.0.2.1:12345"),
            (binary(0x21, 0x11, &extended), "192.0.2.1:12345"),
            (binary(0x21, 0x21, &v6), "[::1]:12345"),
            (binary(0x20, 0x00, &[]), "Itself"),
            (binary(0x20, 0x11, &v4), "Itself"),
            (binary(0x21, 0x00, &[]), "Unknown"),
        ] {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            let (read, rest) = outcome(&bytes).await;
            assert_eq!(read.as_deref(), Ok(said), "{}", header.escape_ascii());
            assert_eq!(rest, b"GET / HTTP/1.1\r\n", "{}", header.escape_ascii());
        }
    }

    #[tokio::test]
    async fn malformed_or_cut_off_header_is_an_error() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0, 80];
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 99999 80\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 1 2\r\nxxx".to_vec(),
            b"PROXY TCP4 192.0.2.1\r\nxxxxx".to_vec(),
            b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            long,
            binary(0x31, 0x11, &v4),
            binary(0x22, 0x11, &v4),
            binary(0x21, 0x12, &v4),
            binary(0x21, 0x11, &v4[..8]),
            binary(0x21, 0x11, &vec![0; MAX_REST + 1]),
        ] {
            assert_eq!(outcome(&bytes).await.0, Err(io::ErrorKind::InvalidData), "{}", bytes.escape_ascii());
        }
        for cut in [&b""[..], b"PROXY", b"PROXY TCP4 192.0.2.1 19", &binary(0x21, 0x11, &v4)[..20]] {
            assert_eq!(outcome(cut).await.0, Err(io::ErrorKind::UnexpectedEof), "{}", cut.escape_ascii());
        }
    }
}
