//! Observability: metrics, the process log, the access log, and the timelines of recent requests.

mod acme;
mod auth;
mod backends;
mod families;
pub mod handles;
mod limits;
pub mod log;
pub mod metrics;
mod rate_limits;
mod rates;
pub mod record;
pub mod timeline;

pub use acme::{AcmeFamilies, AcmeMetrics};
pub use auth::{AuthFamilies, KeySetMetrics};
pub use backends::{BackendFamilies, BackendMetrics};
pub use limits::{Limit, LimitMetrics};
pub use log::{AccessLog, LogGuard, LogHandle};
pub use metrics::Metrics;
pub use rate_limits::{RateLimitFamilies, Refusals, StoreMetrics};
pub use rates::keep_rates;
pub use record::Phase;
pub use timeline::Timelines;
