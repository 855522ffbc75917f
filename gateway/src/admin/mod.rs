//! Listeners for operators: metrics of the gateway, and the management API that changes its configuration.

mod api;
mod metrics_server;
mod serve;

pub use api::{AccessError, Api, ApiAccess, ApiServer};
pub use metrics_server::{MetricsServer, Readiness};
pub use serve::HttpListener;
