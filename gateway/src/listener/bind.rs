//! Binding of listening sockets, before anything else starts.
//!
//! A socket for every IPv6 address (`[::]:80`) takes IPv4 too, unless it is told otherwise before it is bound. So it
//! serves both alone, and keeps `0.0.0.0:80` from being bound. Where the configuration has both, each takes its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, SockRef, Socket, Type};

/// Connections that wait to be accepted; the system makes it `net.core.somaxconn` where that is less.
const BACKLOG: i32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key}): {source}")]
pub struct BindError {
    pub(crate) address: SocketAddr,
    pub(crate) key: &'static str,
    pub(crate) source: io::Error,
}

/// Binds `address`, which the configuration has under `key`. Port 0 becomes a free one.
///
/// # Errors
/// Where the address is taken, not of this machine, or not permitted.
pub fn bind(address: SocketAddr, key: &'static str) -> Result<(TcpListener, SocketAddr), BindError> {
    bind_beside(address, key, &[])
}

/// Binds `address` beside `all` the addresses that are listened on: where it is the IPv6 wildcard and the IPv4
/// wildcard is among them, it takes IPv6 only.
///
/// # Errors
/// As for [`bind`].
pub fn bind_beside(
    address: SocketAddr,
    key: &'static str,
    all: &[SocketAddr],
) -> Result<(TcpListener, SocketAddr), BindError> {
    let listener = match leaves_ipv4(address, all) {
        true => bind_ipv6_only(address),
        false => TcpListener::bind(address),
    };
    let bound = listener.and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| BindError { address, key, source })
}

/// Returns true if a listener on `address` leaves IPv4 to another one of `all`: both are the wildcards of one port.
pub fn leaves_ipv4(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let is_wildcard = address.is_ipv6() && address.ip().is_unspecified() && address.port() != 0;
    is_wildcard && all.contains(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

/// Returns true if an IPv6 socket takes no IPv4.
pub fn is_ipv6_only(listener: &TcpListener) -> bool {
    SockRef::from(listener).only_v6().unwrap_or(false)
}

/// What the standard library does for a listener, and the option in between.
fn bind_ipv6_only(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(true)?;
    // Connections of the process before may still be closing there.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn a_taken_address_is_named_with_its_key() {
        let (_taken, address) = bind("127.0.0.1:0".parse().unwrap(), "proxy.listen_addr_http").unwrap();
        let error = bind(address, "metrics.listen_addr").unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address} (metrics.listen_addr): ")), "{error}");
    }

    #[test]
    fn only_beside_the_ipv4_wildcard_of_its_port_an_ipv6_wildcard_leaves_ipv4() {
        let addresses =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        for (all, expected) in [
            (&["0.0.0.0:80", "[::]:80"][..], true),
            (&["[::]:80", "0.0.0.0:80"], true),
            (&["[::]:80"], false),
            (&["[::]:80", "0.0.0.0:81"], false),
            (&["[::]:80", "127.0.0.1:80"], false),
        ] {
            assert_eq!(leaves_ipv4("[::]:80".parse().unwrap(), &addresses(all)), expected, "{all:?}");
        }
        let both = addresses(&["0.0.0.0:80", "[::]:80"]);
        assert!(!leaves_ipv4(both[0], &both), "it takes IPv4, and nothing else");
        assert!(!leaves_ipv4("[::1]:80".parse().unwrap(), &both));
        let any = addresses(&["0.0.0.0:0", "[::]:0"]);
        assert!(!leaves_ipv4(any[1], &any), "these are two ports");
    }

    /// Both wildcards of a port that is free for both.
    fn both_wildcards() -> (TcpListener, TcpListener) {
        for _ in 0..100 {
            let ipv4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let port = ipv4.local_addr().unwrap().port();
            let ipv6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let all = [ipv6, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
            match bind_beside(ipv6, "proxy.listen_addr", &all) {
                Ok((ipv6, _)) => return (ipv4, ipv6),
                // Something else has it.
                Err(error) => assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse, "{error}"),
            }
        }
        panic!("no port is free for both");
    }

    #[test]
    fn both_wildcards_of_a_port_are_bound() {
        let (_ipv4, ipv6) = both_wildcards();
        assert!(is_ipv6_only(&ipv6));
        let alone = bind("[::]:0".parse().unwrap(), "proxy.listen_addr").unwrap().0;
        assert!(!is_ipv6_only(&alone) || std::fs::read("/proc/sys/net/ipv6/bindv6only").unwrap() == b"1\n");
    }
}
