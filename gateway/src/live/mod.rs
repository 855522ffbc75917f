//! The running configuration. It is compiled to a [`Snapshot`], which requests read without a lock.
//!
//! A change is a complete new configuration. It is validated, compiled to a new [`Snapshot`], tested with its
//! `[[tests]]` and written to its file. Then the new snapshot replaces the old snapshot in one step. A change
//! happens completely or not at all. Every source of changes uses this one way: the file and SIGHUP
//! ([`Reloader`]), the management API, and guarded rollouts ([`Rollouts`]).

mod carry_over;
mod cases;
mod change;
pub mod checks;
mod compile;
mod effective;
mod explain;
mod persist;
mod reload;
mod retire;
mod rollout;
mod settings;
mod snapshot;
mod store;
mod watches;

pub use change::{Applied, Change, ChangeError, Persistence, Revision};
pub use compile::resolve::Resolution;
pub use explain::{BackendCondition, Explanation, Question, asked, explain};
pub use persist::KeepError;
pub use reload::Reloader;
pub use rollout::{Measured, Progress, RolloutService, Rollouts};
pub use settings::ProxySettings;
pub use snapshot::{HostPolicies, Instance, Route, Snapshot};
pub use store::Store;
pub use watches::Watches;
