//! Listeners for operators: the metrics listener, and the management API that changes the configuration.

mod api;
mod metrics_server;
mod serve;

pub use api::{AccessError, Api, ApiAccess, ApiServer};
pub use metrics_server::{MetricsServer, Readiness};
pub use serve::HttpListener;
