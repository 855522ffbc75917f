//! Binding of listening sockets, before any other part of the gateway starts.
//!
//! A socket for the IPv6 wildcard (`[::]:80`) also accepts IPv4 connections, unless an option is set before it is
//! bound. So it serves both IP versions, and prevents the binding of `0.0.0.0:80`. If the configuration has both
//! addresses, the IPv6 socket is therefore limited to IPv6.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, SockRef, Socket, Type};

/// Maximum number of connections that wait to be accepted. The system uses `net.core.somaxconn` if that is less.
const BACKLOG: i32 = 4096;

/// Error for an address on which the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key}): {source}")]
pub struct BindError {
    pub(crate) address: SocketAddr,
    pub(crate) key: &'static str,
    pub(crate) source: io::Error,
}

/// Binds `address`, which is the value of `key` in the configuration. For port 0, the system chooses a free port.
///
/// # Errors
/// Returns an error if the address is in use, does not belong to this machine, or is not permitted.
pub fn bind(address: SocketAddr, key: &'static str) -> Result<(TcpListener, SocketAddr), BindError> {
    bind_beside(address, key, &[])
}

/// Binds `address`. `all` contains the addresses on which the gateway listens: if it contains the IPv4 wildcard, a
/// socket for the IPv6 wildcard of the same port accepts only IPv6.
///
/// # Errors
/// Returns the same errors as [`bind`].
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

/// Returns true if a listener on `address` must accept only IPv6: `address` is the IPv6 wildcard, and `all` contains
/// the IPv4 wildcard with the same port.
pub fn leaves_ipv4(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let is_wildcard = address.is_ipv6() && address.ip().is_unspecified() && address.port() != 0;
    is_wildcard && all.contains(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

/// Returns true if `listener` is an IPv6 socket that does not accept IPv4 connections.
pub fn is_ipv6_only(listener: &TcpListener) -> bool {
    SockRef::from(listener).only_v6().unwrap_or(false)
}

/// Binds a listener as the standard library does, but first sets the option for IPv6 only.
fn bind_ipv6_only(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(true)?;
    // On this address, connections of an earlier process may still be closing.
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
    fn ipv6_wildcard_leaves_ipv4_only_beside_ipv4_wildcard() {
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

    /// Returns listeners for the IPv4 and the IPv6 wildcard, with the same port.
    fn both_wildcards() -> (TcpListener, TcpListener) {
        for _ in 0..100 {
            let ipv4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let port = ipv4.local_addr().unwrap().port();
            let ipv6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let all = [ipv6, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
            match bind_beside(ipv6, "proxy.listen_addr", &all) {
                Ok((ipv6, _)) => return (ipv4, ipv6),
                // Another socket uses the port.
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
