//! # Consistent hashing
//!
//! An upstream with a cache or a session in its memory is fast for the clients that it knows. So a client should
//! always get the same one. The number of the client modulo the number of upstreams would do, until an upstream
//! leaves: then almost every client moves. *Consistent hashing* puts each upstream on many points of a ring. A key
//! belongs to the next point after it. If an upstream leaves, only its own keys move to the points that follow.
//!
//! The key decides who can do harm. A field of the request, or the client's port, is chosen by the client, and so
//! is the second half of an IPv6 address: a customer usually gets 2^64 of them. A client that knows the
//! algorithm can compute which keys share an upstream, and send everything to that one. With a secret inside the
//! hash, it cannot. Proxies side by side need the same secret, because they must agree.
//!
//! **Your task**: choose the algorithm, write `key`, and choose the upstream in `upstream_peer`. A client is an
//! IPv4 address or the first 64 bits of an IPv6 address. `::ffff:192.0.2.1` is an IPv4 address, as a listener for
//! both families reports it. While an upstream is unhealthy, its clients go to another one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use openssl::sha::sha256;
use pingora::lb::health_check::TcpHealthCheck;
use pingora::lb::selection::RoundRobin;
use pingora::prelude::*;

use crate::peer::peer;

/// Maximum number of points of the ring that are visited to find a healthy upstream.
pub const STEPS: usize = 10_000;

/// Algorithm that chooses the upstream for a key.
// TODO: with this one, no client stays with its upstream. Choose another one of `pingora::lb::selection`.
pub type Algorithm = RoundRobin;

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
pub fn key(secret: &str, _client: IpAddr) -> [u8; 32] {
    // TODO: the hash of the secret and the part of the address that says which client it is.
    sha256(secret.as_bytes())
}

#[async_trait]
impl ProxyHttp for Sharded {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let Some(client) = session.client_addr().and_then(|address| address.as_inet()) else {
            return Error::e_explain(HTTPStatus(400), "the client has no IP address");
        };
        // TODO: choose the upstream by the client's key, and answer 503 if there is none. For now, the answer is 501.
        let key = key(&self.secret, client.ip());
        let Some(upstream) = self.balancer.select(&key, 0) else {
            return Error::e_explain(HTTPStatus(501), "no upstream is chosen yet");
        };
        Ok(peer(upstream))
    }
}
