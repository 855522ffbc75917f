//! Reads the configuration again: when SIGHUP asks for it, and when its file has changed.
//!
//! The directory of the file is watched, not the file: editors write a new one and rename it over the old,
//! and Kubernetes swaps a symlink beside it. Whatever changed there, a look at the file tells whether it is
//! another one; and only a configuration that differs from the one that runs is taken over.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{error, warn};

use super::{Change, Keeping, Store};
use crate::telemetry::Metrics;

/// A file that is being written changes several times: it is read when it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(100);
/// In a directory where it is never quiet, it is read all the same after this time.
const BUSY: Duration = Duration::from_secs(1);

/// Why the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// Somebody asked for it.
    Sighup,
    /// Something has changed in the directory of the file.
    FileChanged,
}

/// Asks for the configuration to be read again.
#[derive(Clone)]
pub struct Reloader {
    triggers: Sender<Trigger>,
}

impl Reloader {
    /// Starts a thread that has `store` read its source again.
    pub fn start(store: Arc<Store>, metrics: Arc<Metrics>) -> Reloader {
        let (triggers, awaited) = mpsc::channel();
        let watcher = store.source().file().and_then(|file| watch(file, triggers.clone()));
        if store.source().file().is_some() {
            // It may have changed between the first reading and the beginning of the watch.
            let _ = triggers.send(Trigger::FileChanged);
        }
        thread::spawn(move || {
            // Watches as long as it is not dropped.
            let _watcher = watcher;
            let mut last_error = None;
            let mut last_seen = None;
            while let Some(trigger) = next(&awaited) {
                let seen = store.source().file().and_then(Fingerprint::of);
                let is_another = seen != std::mem::replace(&mut last_seen, seen.clone());
                if trigger == Trigger::FileChanged && !is_another {
                    continue;
                }
                let outcome = match trigger {
                    Trigger::Sighup => reload(&store),
                    Trigger::FileChanged => store.follow_file().map_err(|error| error.to_string()),
                };
                metrics.last_reload_successful.set(outcome.is_ok().into());
                let error = outcome.err();
                // One who edits a file step by step is not told the same thing at every step.
                if let Some(error) = &error
                    && (trigger == Trigger::Sighup || last_error.as_ref() != Some(error))
                {
                    error!("the configuration was not taken over, the old one goes on: {error}");
                }
                last_error = error;
            }
        });
        Reloader { triggers }
    }

    /// Asks for it.
    pub fn request(&self) {
        // The thread ends only with the process.
        let _ = self.triggers.send(Trigger::Sighup);
    }
}

fn reload(store: &Store) -> Result<(), String> {
    let applied = store.reload(Change::by("SIGHUP", Keeping::Required));
    applied.map(|_| ()).map_err(|error| error.to_string())
}

/// The next trigger, when the file has been quiet for a while; `None` when nobody is left who could ask.
fn next(awaited: &Receiver<Trigger>) -> Option<Trigger> {
    let mut trigger = awaited.recv().ok()?;
    let until = Instant::now() + BUSY;
    while Instant::now() < until {
        match awaited.recv_timeout(QUIET) {
            Ok(Trigger::Sighup) => trigger = Trigger::Sighup,
            Ok(Trigger::FileChanged) => {}
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    Some(trigger)
}

/// What tells whether a file is still the same one, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fingerprint {
    path: PathBuf,
    inode: (u64, u64),
    length: u64,
    modified: (i64, i64),
}

impl Fingerprint {
    /// That of the file that is there now; `None` where there is none.
    fn of(file: &Path) -> Option<Self> {
        let path = file.canonicalize().ok()?;
        let found = path.metadata().ok()?;
        let (inode, modified) = ((found.dev(), found.ino()), (found.mtime(), found.mtime_nsec()));
        Some(Fingerprint { path, inode, length: found.len(), modified })
    }
}

/// Sends a trigger whenever something happens in the directory of `file`, or of what it is a link to.
fn watch(file: &Path, triggers: Sender<Trigger>) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // The thread ends only with the process.
            let _ = triggers.send(Trigger::FileChanged);
        }
    };
    let watching = notify::recommended_watcher(handler).and_then(|mut watcher| {
        for directory in directories(file) {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    match watching {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!(%error, file = %file.display(), "changes of the file go unnoticed; SIGHUP still reads it");
            None
        }
    }
}

fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let target = file.canonicalize().ok();
    let parents = [Some(file), target.as_deref()].into_iter().flatten().filter_map(Path::parent);
    parents
        .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_of_a_link_and_of_its_target_are_watched() {
        let directory = tempfile::tempdir().unwrap();
        let (data, link) = (directory.path().join("data"), directory.path().join("gateway.toml"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "").unwrap();
        std::os::unix::fs::symlink(data.join("file"), &link).unwrap();
        let data = data.canonicalize().unwrap();
        assert_eq!(directories(&link), BTreeSet::from([directory.path().to_owned(), data]));
        assert!(directories(Path::new("gateway.toml")).contains(Path::new(".")));
    }

    #[test]
    fn triggers_close_together_are_one() {
        let (triggers, awaited) = mpsc::channel();
        for trigger in [Trigger::FileChanged, Trigger::Sighup, Trigger::FileChanged] {
            triggers.send(trigger).unwrap();
        }
        assert_eq!(next(&awaited), Some(Trigger::Sighup));
        drop(triggers);
        assert_eq!(next(&awaited), None);
    }
}
