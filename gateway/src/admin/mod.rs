//! What operators ask the gateway, on listeners of their own.

mod metrics_server;

pub use metrics_server::{MetricsServer, Readiness};
