//! The running configuration: compiled into a [`Snapshot`], which a request reads without a lock, and replaced
//! in one single way.
//!
//! A change is a complete new configuration. It is validated, compiled to a new [`Snapshot`], tried on its own
//! `[[tests]]` and written to its file. Then it replaces the old snapshot in one step. A change happens
//! completely or not at all. This holds for each source of changes: the file and SIGHUP ([`Reloader`]), the
//! management API, and guarded rollouts ([`Rollouts`]).

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
