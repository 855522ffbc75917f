//! Listeners for operators: metrics of the gateway, and the management API that changes its configuration.

mod api;
mod metrics_server;
mod serve;

pub use api::{Access, AccessError, Api, ApiServer};
pub use metrics_server::{MetricsServer, Readiness};
pub use serve::Door;
