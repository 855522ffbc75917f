//! Whom a connection is for: its other end, or the client for whom a load balancer says that it is (PROXY protocol).

use std::net::{IpAddr, SocketAddr};

use pingora::protocols::l4::socket::SocketAddr as AnySocketAddr;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::{GetSocketDigest, SocketDigest, UniqueID};

use super::proxy_protocol::{self, OnBehalfOf};
use crate::config::Proxy;

/// Whom a connection is for, as far as one can tell, so that it counts as that client's. Who is trusted speaks for
/// many, and is nobody's.
pub(super) async fn client(stream: &mut TcpStream, proxy: &Proxy) -> Result<Option<IpAddr>, String> {
    let is_trusted = |peer: IpAddr| proxy.trusted_proxies.iter().any(|network| network.contains(peer));
    if proxy.proxy_protocol {
        let peer = address(stream).ok_or("it has no address")?;
        if !is_trusted(peer.ip()) {
            return Err("its PROXY header would not be believed (proxy.trusted_proxies)".to_owned());
        }
        return introduce(stream).await;
    }
    Ok(match proxy.max_connections_per_ip {
        0 => None,
        _ => address(stream).map(|peer| peer.ip()).filter(|peer| !is_trusted(*peer)),
    })
}

/// Has the load balancer at the other end say for whom the connection is.
async fn introduce(stream: &mut TcpStream) -> Result<Option<IpAddr>, String> {
    let client = match proxy_protocol::read(stream).await.map_err(|error| error.to_string())? {
        OnBehalfOf::Itself => return Ok(None),
        OnBehalfOf::Client(client) => Some(client),
        // Nobody who could be trusted: what comes is the client's, and not the load balancer's.
        OnBehalfOf::Somebody => None,
    };
    let digest = SocketDigest::from_raw_fd(stream.id());
    // It is new, and so has none yet.
    let _ = digest.peer_addr.set(client.map(AnySocketAddr::Inet));
    stream.set_socket_digest(digest);
    Ok(client.map(|client| client.ip()))
}

/// The other end of a connection.
pub(super) fn address(stream: &TcpStream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}
