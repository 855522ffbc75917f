//! What the gateway tells about itself: metrics, the process log and the access log.

pub mod access_log;
mod families;
pub mod logging;
pub mod metrics;
mod rates;

pub use access_log::AccessLog;
pub use logging::LogGuard;
pub use metrics::Metrics;
pub use rates::keep_rates;
