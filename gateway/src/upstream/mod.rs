//! Backends: their state, the choice among them, the connections to them, and the checks of their health.

mod backend;
mod balance;
mod breaker;
mod certificate;
pub mod connection;
mod discovery;
mod health;
mod idle;
mod mirror;
mod peer;
mod pool;
pub mod response_check;
pub mod retry;
mod split;
mod subrequest;
mod window;

pub use backend::{Attempt, BackendState, CircuitMode, Endpoint};
pub use balance::Member;
pub use breaker::{BreakerRules, CircuitState, Outcome};
pub use certificate::{check_address, explain_in_log};
pub use discovery::{Discoverer, LookupError, ResolvedAddress, ResolvedAddresses, fixed, look_up_now};
pub use health::{HealthChecker, HealthPlan};
pub use mirror::{Mirror, MirrorCopy, Mirrors};
pub use peer::{BadFile, PeerOptions, PeerSettings, Pooling};
pub use pool::{NoBackend, Pool, Selection};
pub use retry::{RetryBudget, RetryRules};
pub use split::{SplitBucket, TrafficSplit, WeightedPool};
