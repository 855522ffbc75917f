//! gRPC through the gateway: a real client and a real service (tonic), HTTP/2 all the way.

mod broken;
mod calls;
pub(crate) mod client;
mod failures;
pub(crate) mod service;
mod web;

use std::net::SocketAddr;

use crate::support::{Gateway, Setup};

/// HTTP/2 on both sides without TLS, and no probes.
const HTTP2: &str = "[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\n";

/// A gateway over a service of gRPC, with these tables besides.
async fn start(backend: SocketAddr, tables: &str) -> Gateway {
    start_with(backend, "", &format!("{HTTP2}{tables}")).await
}

/// The same with keys of `[proxy]` and all tables of the test's own.
async fn start_with(backend: SocketAddr, proxy: &str, tables: &str) -> Gateway {
    let proxy = format!("http2_cleartext = true\n{proxy}");
    Gateway::start_over(&[backend], Setup { proxy: &proxy, tables }).await
}
