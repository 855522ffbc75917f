//! What operators ask the gateway, on listeners of their own.

mod monitor;

pub use monitor::{Monitor, Readiness};
