//! What operators ask the gateway, on listeners of their own: how it does, and to be another one.

mod api;
mod metrics_server;
mod serve;

pub use api::{Access, AccessError, Api, ApiServer};
pub use metrics_server::{MetricsServer, Readiness};
pub use serve::Door;
