//! Types that describe a change of the configuration: the requested change, its result, its error, and the
//! revision in the history.

use std::sync::Arc;
use std::time::SystemTime;

use super::snapshot::Snapshot;
use crate::config::ConfigError;
use crate::live::persist::KeepError;

/// A configuration that runs now or ran earlier.
pub struct Revision {
    /// Number of the revision. The first configuration of this process is 1, and each change adds one.
    pub number: u64,
    /// Time at which the configuration started to run.
    pub at: SystemTime,
    /// Author of the change: the address of a management client, "file", "SIGHUP", "start" or a rollout.
    pub by: String,
    /// Differences from the previous revision, a line each.
    pub changes: Vec<String>,
    pub(super) text: String,
}

impl<'a> Change<'a> {
    /// Returns a change with the author `by`. The change accepts any running revision and is no dry run.
    pub fn by(by: &'a str, persistence: Persistence) -> Self {
        Change { by, expected: None, dry_run: false, persistence }
    }
}

/// Author and conditions of a requested change. The new configuration itself is passed separately.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// Author of the change, as the log and the history name it.
    pub by: &'a str,
    /// Entity tags, one of which the running revision must have; `None` accepts any revision.
    pub expected: Option<&'a [String]>,
    /// True for a dry run: the change is prepared and checked, but the running configuration stays.
    pub dry_run: bool,
    /// Rule for the case that the change cannot be written to the file.
    pub persistence: Persistence,
}

/// Rule for a change that cannot be written to the configuration's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The change does not happen.
    Required,
    /// The change happens all the same, and the gateway logs a warning.
    Attempted,
}

/// Result of a change that succeeded.
pub struct Applied {
    /// Number of the revision that ran before the change.
    pub before: u64,
    /// Snapshot that runs now. For a dry run: the snapshot that would run.
    pub snapshot: Arc<Snapshot>,
    /// Differences from the configuration that ran before, a line each.
    pub changes: Vec<String>,
    /// Keys whose new value takes effect only after a restart.
    pub after_restart: Vec<&'static str>,
}

/// Reason why a change did not happen. No part of the change took effect.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<R> {
    /// The caller's edit function rejected the change, or the revision of a rollback is not in the history.
    #[error("{0}")]
    Refused(R),
    /// The change expects a revision that no longer runs. The field is the number of the running revision.
    #[error("the configuration has changed since it was read; it is revision {0} now")]
    OutOfDate(u64),
    /// The resulting configuration is invalid.
    #[error(transparent)]
    Invalid(ConfigError),
    /// The file was edited in the meantime and is invalid now. To write the change would overwrite that edit.
    #[error("the file was edited and is not valid now, so the gateway does not write to it: {0}")]
    FileIsWrong(ConfigError),
    /// The file cannot be written.
    #[error("cannot write {file}: {error}; the running configuration has not changed")]
    NotKept {
        /// Path of the file.
        file: String,
        /// Reason of the failure.
        error: KeepError,
    },
}
