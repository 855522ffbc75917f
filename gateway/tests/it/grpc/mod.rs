//! gRPC through the gateway: a real client and a real service (tonic), with HTTP/2 on both sides.

mod broken;
mod calls;
pub(crate) mod client;
mod failures;
pub(crate) mod service;
mod web;

use std::net::SocketAddr;

use crate::support::{Gateway, Setup};

/// HTTP/2 on both sides without TLS, and no health checks.
const HTTP2: &str = "[health_check]\nenabled = false\n[upstream]\nprotocol = \"http2\"\n";

/// Starts a gateway over a gRPC service, with additional tables.
async fn start(backend: SocketAddr, tables: &str) -> Gateway {
    start_with(backend, "", &format!("{HTTP2}{tables}")).await
}

/// Starts a gateway with these keys of `[proxy]` and with all tables given by the test.
async fn start_with(backend: SocketAddr, proxy: &str, tables: &str) -> Gateway {
    let proxy = format!("http2_cleartext = true\n{proxy}");
    Gateway::start_over(&[backend], Setup { proxy: &proxy, tables }).await
}
