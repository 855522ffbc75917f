//! Backends: who they are, which of them is asked, how they are spoken to, and how their health is known.

mod backend;
mod balance;
mod health;
mod peer;
mod pool;
pub mod retry;
mod split;

pub use backend::{Attempt, BackendState};
pub use balance::RoundRobin;
pub use health::{HealthChecker, HealthPlan};
pub use peer::PeerSettings;
pub use pool::Pool;
pub use split::{Arm, Draw, Split};
