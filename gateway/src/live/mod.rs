//! What is running: a configuration, compiled, in a place where a request gets at it without a lock; and the
//! one way in which it changes.
//!
//! A change is a new configuration, whole: it is validated, compiled to a new [`Snapshot`], tried on its own
//! `[[tests]]`, written to its file, and takes the old one's place in one step. It happens whole or not at all,
//! whoever asks for it: the file and SIGHUP ([`Reloader`]), the management API, or a guarded rollout
//! ([`Rollouts`]).

mod carry_over;
mod cases;
mod change;
mod compile;
mod effective;
mod explain;
mod persist;
mod reload;
mod retire;
mod rollout;
mod snapshot;
mod store;
mod watches;

pub use change::{Applied, Change, ChangeError, Persistence, Revision};
pub use compile::resolve::Resolution;
pub use explain::{BackendCondition, Explanation, Question, asked, explain};
pub use persist::KeepError;
pub use reload::Reloader;
pub use rollout::{Measured, Progress, RolloutService, Rollouts};
pub use snapshot::{HostPolicies, Instance, Route, Snapshot};
pub use store::Store;
pub use watches::Watches;
