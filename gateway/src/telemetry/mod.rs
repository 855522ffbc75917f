//! What the gateway tells about itself: metrics, the process log and the access log.

pub mod access_log;
pub mod logging;
pub mod metrics;

pub use access_log::AccessLog;
pub use logging::LogGuard;
pub use metrics::Metrics;
