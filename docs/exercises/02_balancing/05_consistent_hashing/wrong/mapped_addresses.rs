//! Wrong: an IPv4 address in IPv6 form is treated as IPv6, so all IPv4 clients of a dual listener share one
//! key and one upstream.
//! Caught: "whether 192.0.2.1 and ::ffff:192.0.2.1 have the same key"

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use openssl::sha::sha256;
use pingora::lb::health_check::TcpHealthCheck;
use pingora::lb::selection::Consistent;
use pingora::prelude::*;

use crate::peer::peer;

/// Maximum number of points of the ring that are visited to find a healthy upstream.
pub const STEPS: usize = 10_000;

/// Algorithm that chooses the upstream for a key.
pub type Algorithm = Consistent;

/// Proxy that forwards all requests of one client to the same upstream.
#[derive(Clone)]
pub struct Sharded {
    balancer: Arc<LoadBalancer<Algorithm>>,
    secret: String,
}

impl Sharded {
    /// Returns a proxy for these upstreams. All proxies that stand side by side must have the same `secret`.
    ///
    /// # Errors
    /// Returns an error if the list of upstreams cannot be used.
    pub fn new(upstreams: &[SocketAddr], secret: &str) -> std::io::Result<Sharded> {
        let mut balancer = LoadBalancer::try_from_iter(upstreams)?;
        balancer.set_health_check(TcpHealthCheck::new());
        Ok(Sharded { balancer: Arc::new(balancer), secret: secret.to_owned() })
    }

    /// Checks the health of every upstream once. A real proxy does this in a background service (ex0202).
    pub async fn check_health(&self) {
        self.balancer.backends().run_health_check(true).await;
    }
}

/// Returns the key by which a client is placed.
///
/// The secret stands in front, and the result never leaves the proxy. So the key of an address is known only
/// to those who know the secret.
pub fn key(secret: &str, client: IpAddr) -> [u8; 32] {
    let mut input = secret.as_bytes().to_vec();
    match client {
        IpAddr::V4(address) => input.extend(address.octets()),
        // One customer has a whole /64.
        IpAddr::V6(address) => input.extend(&address.octets()[..8]),
    }
    sha256(&input)
}

#[async_trait]
impl ProxyHttp for Sharded {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let Some(client) = session.client_addr().and_then(|address| address.as_inet()) else {
            return Error::e_explain(HTTPStatus(400), "the client has no IP address");
        };
        let Some(upstream) = self.balancer.select(&key(&self.secret, client.ip()), STEPS) else {
            return Error::e_explain(HTTPStatus(503), "no upstream is healthy");
        };
        Ok(peer(upstream))
    }
}
