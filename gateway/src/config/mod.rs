//! What a person writes: the configuration's schema, where it comes from, and what is wrong with it.
//!
//! A [`Config`] is plain data. Sources are read in [`Source::load`], later ones winning: defaults, the file, the
//! `PINGORA_*` variables, the command line. Whatever cannot work is found here, before anything runs,
//! and reported with its place in the file, all of it at once (names that lead nowhere only where all hosts
//! and backends could be read). Nothing here knows Pingora.

mod document;
mod error;
mod fields;
mod host;
mod load;
mod not_yet;
mod path;
mod policies;
mod routes;
mod schema;
#[cfg(test)]
mod tests;
mod validate;
mod values;
mod variables;

pub use error::{ConfigError, Fault, Position};
pub use fields::{FieldName, FieldValue, Fields};
pub use host::{Domain, InvalidHost, normalise_host};
pub use load::{Overrides, Source};
pub use path::normalise_path;
pub use policies::{
    Algorithm, Balancing, Headers, HealthCheck, ProbeKind, RateLimit, RateLimitKey, RateLimitScope, Retry,
    Upstream,
};
pub use routes::{MethodName, Pattern, Route};
pub use schema::{Backend, Config, LogFormat, LogOutput, Logging, Metrics, Proxy, VirtualHost};
pub use validate::{MAX_ATTEMPTS, MAX_RATE_LIMIT};
pub use values::{HostPort, Millis, OneOrMany, Secs, StatusSet};
pub use variables::{VARIABLES, set_variables};
