//! What is running: a configuration, compiled, in a place where a request gets at it without a lock; and the
//! one way in which it changes.
//!
//! A change is a new configuration, whole: it is validated, compiled to a new [`Snapshot`], tried on its own
//! `[[tests]]`, written to its file, and takes the old one's place in one step. It happens whole or not at all,
//! whoever asks for it: the file and SIGHUP ([`Reloader`]), the management API, or a guarded rollout
//! ([`Rollouts`]).

mod cases;
mod certificates;
mod change;
mod compile;
mod ended;
mod explain;
mod feeds;
mod innermost;
mod keep;
mod limiters;
mod names;
mod pools;
mod reload;
mod rollout;
mod self_signed;
mod snapshot;
mod store;
mod turnover;
mod warnings;

pub use change::{Applied, Change, ChangeError, Keeping, Revision};
pub use explain::{BackendCondition, Explanation, Question, asked, explain};
pub use feeds::Feeds;
pub use keep::KeepError;
pub use names::Names;
pub use reload::Reloader;
pub use rollout::{Measured, Progress, RolloutService, Rollouts};
pub use snapshot::{Entrance, Instance, Route, Snapshot};
pub use store::Store;
