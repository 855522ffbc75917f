//! x
pub mod config;
pub mod ctx;
pub mod failure;
pub mod live;
pub mod policy;
pub mod proxy;
pub mod reply;
pub mod route;
pub mod telemetry;
pub mod upstream;
