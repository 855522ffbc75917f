//! Limits for clients. A client that exceeds a limit gets an error or is disconnected, and other clients are
//! not affected.

mod bodies;
mod connections;
mod descriptors;
mod idle;
mod slow_bodies;
mod slow_readers;

use testkit::Origin;

use crate::support::{Gateway, Setup};

/// Starts a gateway over `origin` that accepts HTTP/2 without TLS, with these keys of `[proxy]` and these tables.
async fn start(origin: &Origin, proxy: &str, tables: &str) -> Gateway {
    let proxy = format!("http2_cleartext = true\n{proxy}");
    let tables = format!("[health_check]\nenabled = false\n{tables}");
    Gateway::start(&[origin], Setup { proxy: &proxy, tables: &tables }).await
}

/// Returns how often the limit called `limit` was exceeded.
async fn met(gateway: &Gateway, limit: &str) -> f64 {
    gateway.metric(&format!("proxy_limits_exceeded_total{{limit=\"{limit}\"}}")).await
}

/// Returns the number of open client connections.
async fn open(gateway: &Gateway) -> f64 {
    gateway.metric("proxy_connections_active").await
}
