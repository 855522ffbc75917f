//! Client of a connection: the other end of the socket, or the client that a load balancer names (PROXY protocol).

use std::net::{IpAddr, SocketAddr};

use pingora::protocols::l4::socket::SocketAddr as AnySocketAddr;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::{GetSocketDigest, SocketDigest, UniqueID};

use super::proxy_protocol::{self, OnBehalfOf};
use crate::live::ProxySettings;

/// Returns the address for the limit on connections from one client; `None` if no limit applies. A trusted proxy sends
/// the requests of many clients, so its own address is not limited.
pub(super) async fn client(stream: &mut TcpStream, proxy: &ProxySettings) -> Result<Option<IpAddr>, String> {
    if proxy.proxy_protocol {
        let peer = address(stream).ok_or("its address is unknown")?;
        if !proxy.trusts(peer.ip()) {
            return Err("a PROXY header from its address is not trusted (proxy.trusted_proxies)".to_owned());
        }
        return introduce(stream).await;
    }
    Ok(match proxy.max_connections_per_ip {
        0 => None,
        _ => address(stream).map(|peer| peer.ip()).filter(|peer| !proxy.trusts(*peer)),
    })
}

/// Reads the PROXY header, and sets the client that the header names as the peer of `stream`. Returns the client's
/// address; `None` if the header has none.
async fn introduce(stream: &mut TcpStream) -> Result<Option<IpAddr>, String> {
    let client = match proxy_protocol::read(stream).await.map_err(|error| error.to_string())? {
        OnBehalfOf::Itself => return Ok(None),
        OnBehalfOf::Client(client) => Some(client),
        // The load balancer's own address must not be used instead: it is trusted, but the client is not.
        OnBehalfOf::Unknown => None,
    };
    let digest = SocketDigest::from_raw_fd(stream.id());
    // This cannot fail: the digest is new, so its address is not set yet.
    let _ = digest.peer_addr.set(client.map(AnySocketAddr::Inet));
    stream.set_socket_digest(digest);
    Ok(client.map(|client| client.ip()))
}

/// Returns the address of the other end of a connection; `None` if it is unknown.
pub(super) fn address(stream: &TcpStream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}
