//! What a change is: asked for, made, refused, and written down.

use std::sync::Arc;
use std::time::SystemTime;

use super::snapshot::Snapshot;
use crate::config::ConfigError;
use crate::live::persist::KeepError;

/// A configuration that ran or runs.
pub struct Revision {
    /// Counts the changes of this process, from 1.
    pub number: u64,
    /// Since when.
    pub at: SystemTime,
    /// Who made the change.
    pub by: String,
    /// What was changed, a line each.
    pub changes: Vec<String>,
    pub(super) text: String,
}

impl<'a> Change<'a> {
    /// A change without conditions.
    pub fn by(by: &'a str, keeping: Persistence) -> Self {
        Change { by, expected: None, dry_run: false, keeping }
    }
}

/// A change that somebody asks for.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// Who.
    pub by: &'a str,
    /// The entity tags, of which one must be that of what runs; `None`: whatever runs.
    pub expected: Option<&'a [String]>,
    /// Whether everything is done but the change.
    pub dry_run: bool,
    /// Whether it may happen without being written to the file.
    pub keeping: Persistence,
}

/// Whether a change may happen without being written to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Where it cannot be written, nothing changes.
    Required,
    /// Where it cannot be written, it happens all the same, and the log says so.
    Attempted,
}

/// What a change has come to.
pub struct Applied {
    /// The revision that ran before.
    pub before: u64,
    /// What runs now; of a dry run, what would run.
    pub snapshot: Arc<Snapshot>,
    /// What was changed, a line each.
    pub changes: Vec<String>,
    /// Keys whose new value holds only after a restart.
    pub after_restart: Vec<&'static str>,
}

/// Why a change has not happened. Everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<R> {
    /// Whoever made the change has found that it makes no sense.
    #[error("{0}")]
    Refused(R),
    /// It is about a configuration that runs no more.
    #[error("the configuration has changed since it was read; it is revision {0} now")]
    OutOfDate(u64),
    /// The configuration that it would come to is wrong.
    #[error(transparent)]
    Invalid(ConfigError),
    /// The file has been edited meanwhile, and what it says is wrong: writing to it would lose the edit.
    #[error("the file was edited and cannot be taken over, so nothing is written to it: {0}")]
    FileIsWrong(ConfigError),
    /// The file cannot be written.
    #[error("cannot write {file}: {error}; the running configuration is as it was")]
    NotKept {
        /// The file.
        file: String,
        /// Why.
        error: KeepError,
    },
}
