//! What the gateway tells about itself: metrics, the process log, the access log and the timelines
//! of recent requests.

pub mod access_log;
mod acme;
mod auth;
mod families;
pub mod handles;
pub mod logging;
pub mod metrics;
mod rates;
pub mod timeline;

pub use access_log::AccessLog;
pub use acme::{AcmeFamilies, AcmeMetrics};
pub use auth::{AuthFamilies, KeySetMetrics};
pub use logging::LogGuard;
pub use metrics::Metrics;
pub use rates::keep_rates;
pub use timeline::{Phase, Timelines};
