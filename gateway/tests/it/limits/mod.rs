//! What clients may ask for, one limit after another: who is over it is told so or turned away, and nobody else
//! notices.

mod bodies;
mod connections;
mod descriptors;
mod idle;
mod slow_bodies;
mod slow_readers;

use testkit::Origin;

use crate::support::{Gateway, Setup};

/// A gateway over `origin`, also by HTTP/2 without TLS, with these keys of `[proxy]` and these tables.
async fn start(origin: &Origin, proxy: &str, tables: &str) -> Gateway {
    let proxy = format!("http2_cleartext = true\n{proxy}");
    let tables = format!("[health_check]\nenabled = false\n{tables}");
    Gateway::start(&[origin], Setup { proxy: &proxy, tables: &tables }).await
}

/// How often the limit called `limit` has been met.
async fn met(gateway: &Gateway, limit: &str) -> f64 {
    gateway.metric(&format!("proxy_limits_exceeded_total{{limit=\"{limit}\"}}")).await
}

/// How many connections of clients are open.
async fn open(gateway: &Gateway) -> f64 {
    gateway.metric("proxy_connections_active").await
}
