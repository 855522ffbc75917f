//! Checks of the PROXY protocol header, which precedes the bytes of a connection and names the client.

use std::io::ErrorKind;
use std::net::SocketAddr;

use futures::FutureExt as _;
use gateway::listener::proxy_protocol::{OnBehalfOf, read};

/// Checks that the reader consumes exactly the header at the start of `input`, independently of the bytes that
/// follow. A header without its last byte must be incomplete. The client's address must survive a round trip.
pub fn check(input: &[u8]) {
    let Ok((found, length)) = header(input) else { return };
    let written = &input[..length];
    let expected = match input {
        [b'P', ..] => input.windows(2).position(|pair| pair == b"\r\n").map(|at| at + 2),
        _ => input.get(14..16).map(|rest| 16 + usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
    };
    assert_eq!(Some(length), expected, "{} was read otherwise", written.escape_ascii());
    assert_eq!(header(written), Ok((found, length)), "{} needs what follows it", written.escape_ascii());
    for rest in [&b"\r\n"[..], b"\0", b"PROXY UNKNOWN\r\n"] {
        let more = [written, rest].concat();
        assert_eq!(header(&more), Ok((found, length)), "{} reads what follows it", written.escape_ascii());
    }
    assert_eq!(header(&written[..length - 1]), Err(ErrorKind::UnexpectedEof), "{}", written.escape_ascii());
    if let OnBehalfOf::Client(address) = found {
        let again = line(address);
        assert_eq!(header(again.as_bytes()), Ok((found, again.len())), "{again:?} says it again");
    }
}

/// Returns the client that the header at the start of `bytes` names, and the length of the header.
fn header(bytes: &[u8]) -> Result<(OnBehalfOf, usize), ErrorKind> {
    let mut stream = bytes;
    match read(&mut stream).now_or_never() {
        Some(read) => read.map(|found| (found, bytes.len() - stream.len())).map_err(|error| error.kind()),
        None => panic!("it waits for bytes that are there"),
    }
}

/// Returns a header of version 1 that names a client.
fn line(address: SocketAddr) -> String {
    let (family, ip, port) = (if address.is_ipv4() { "TCP4" } else { "TCP6" }, address.ip(), address.port());
    format!("PROXY {family} {ip} {ip} {port} 80\r\n")
}
