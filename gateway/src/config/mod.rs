//! Configuration that the operator writes: its schema, its sources and its validation.
//!
//! A [`Config`] is plain data. [`Source::read`] reads the defaults, the file, the `PINGORA_*` variables and the
//! command line, in this order; a later source overrides an earlier one. Every fault is found before the configuration
//! is used. All faults are reported at once, each with its position in the file. References to unknown names are only
//! checked if all hosts and backends could be read. This module does not depend on Pingora.

mod address;
mod auth;
mod cases;
mod counter_store;
mod diff;
mod document;
mod elements;
mod error;
mod fields;
mod host;
mod json_schema;
mod lets_encrypt;
mod load;
mod logging;
mod network;
mod not_yet;
mod origin;
mod path;
mod policies;
mod proxy;
mod rate_limit;
mod redirect;
mod responses;
mod rewrite;
mod routes;
mod schema;
mod search;
mod secrets;
mod shares;
mod tables;
mod template;
#[cfg(test)]
mod tests;
mod upstream;
mod validate;
mod values;
mod variables;

pub use address::{Address, HostPort};
pub use auth::{Access, Auth, AuthKind, JwtAlgorithm};
pub use cases::{Case, Expect};
pub use counter_store::{CounterStore, Redis, RedisPlace};
pub use diff::difference;
pub use document::did_you_mean;
pub use error::{ConfigError, Fault, Position};
pub use fields::{FieldName, FieldValue, Fields, normalized_name};
pub use host::{Domain, InvalidHost, normalise_host};
pub use json_schema::json_schema;
pub use lets_encrypt::{ChallengeKind, LetsEncrypt};
pub use load::{Overrides, Parsed, Source};
pub use logging::{
    AccessField, AccessFormat, LinePart, LogFormat, LogOutput, Logging, StatusClass, WhenFull,
};
pub use network::{Cidr, client_network};
pub use origin::AllowedOrigin;
pub use path::{BadPath, Paths, ReadPath, read_path};
pub use policies::{FaultInjection, Headers, Limits, SecurityHeaders};
pub use proxy::{Proxy, TrustedField};
pub use rate_limit::{RateLimit, RateLimitKey, RateLimitScope, RateLimits};
pub use redirect::{RedirectStatus, RedirectTarget, Section};
pub use responses::{Coding, Compression, CompressionLevel, Cors, FieldOrAny, MediaTypes};
pub use routes::{Pattern, Route};
pub use schema::{Admin, Backend, ClientCertificate, Config, Metrics, VirtualHost};
pub use search::search;
pub use secrets::{hide_secrets, is_secret, reveal_secrets, shown_url};
pub use shares::{Rollout, RolloutState, Share};
pub use tables::PolicyTables;
pub(crate) use tables::policy_tables;
pub use template::{Template, TemplatePart, Value, push_encoded};
pub use upstream::{
    Algorithm, Balancing, CircuitBreaker, HashKey, HealthCheck, ProbeKind, Retry, Upstream, UpstreamProtocol,
};
pub use validate::{MAX_ATTEMPTS, MAX_RATE_LIMIT, MAX_RATE_LIMITS, PathFault};
pub use values::{MethodName, Millis, OneOrMany, Percent, Secs, StatusSet, Weight};
pub use variables::{VARIABLES, configure, name_backends, set_variables};
