//! Reads the configuration again: when SIGHUP asks for it, and when its file has changed; and certificates and
//! keys when theirs have.
//!
//! The directory of a file is watched, not the file: editors write a new one and rename it over the old,
//! and Kubernetes swaps a symlink beside it. Whatever changed there, a look at the file tells whether it is
//! another one; and only a configuration that differs from the one that runs is taken over.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{error, info, warn};

use super::{Change, Persistence, Store};
use crate::telemetry::Metrics;
use crate::util::files::Fingerprint;

/// A file that is being written changes several times: it is read when it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(100);
/// In a directory where it is never quiet, it is read all the same after this time.
const BUSY: Duration = Duration::from_secs(1);
/// Some file systems tell nobody of changes, and a change through the management API may name new files: so
/// often a look is taken unasked.
const LOOK: Duration = Duration::from_secs(5);
/// How often the same warning is said.
const SAY_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

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
        // What has changed between the first reading and the beginning of the watch must be noticed, too.
        let _ = triggers.send(Trigger::FileChanged);
        let mut following = Following {
            watch: Watch::new(triggers.clone()),
            store,
            metrics,
            seen: HashMap::new(),
            last_error: None,
            told: HashMap::new(),
        };
        thread::spawn(move || {
            following.watch_files();
            while let Some(trigger) = next(&awaited) {
                following.look(trigger);
                following.watch_files();
                following.warn();
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

/// What the thread knows.
struct Following {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    watch: Watch,
    /// How each file was when it was last looked at.
    seen: HashMap<PathBuf, Option<Fingerprint>>,
    last_error: Option<String>,
    /// Of what has been warned, and when.
    told: HashMap<String, Instant>,
}

impl Following {
    /// Looks at every file, and takes over what has changed.
    fn look(&mut self, trigger: Trigger) {
        let file = self.store.source().file().map(Path::to_owned);
        let config_changed = file.is_some_and(|file| self.has_changed(&file));
        // Not `any`: each must be looked at.
        let others = self.store.files();
        let others_changed = others.iter().filter(|file| self.has_changed(file)).count() > 0
            || self.store.load().has_self_signed_to_renew();
        let outcome = match trigger {
            Trigger::Sighup => reload(&self.store),
            Trigger::FileChanged if !config_changed && !others_changed => return,
            Trigger::FileChanged => {
                let config = if config_changed { self.store.follow_file() } else { Ok(()) };
                let files = || if others_changed { self.store.follow_files() } else { Ok(()) };
                config.and_then(|()| files()).map_err(|error| error.to_string())
            }
        };
        self.metrics.last_reload_successful.set(outcome.is_ok().into());
        let error = outcome.err();
        if error.is_none() && self.last_error.is_some() {
            info!("the files are in order again");
        }
        // One who edits a file step by step is not told the same thing at every step.
        if let Some(error) = &error
            && (trigger == Trigger::Sighup || self.last_error.as_ref() != Some(error))
        {
            error!("the configuration was not taken over, the old one goes on: {error}");
        }
        self.last_error = error;
    }

    /// Whether `file` is another one than when it was last looked at.
    fn has_changed(&mut self, file: &Path) -> bool {
        let now = Fingerprint::of(file);
        let before = self.seen.insert(file.to_owned(), now.clone());
        before != Some(now)
    }

    fn watch_files(&mut self) {
        let files = self.store.files();
        let files = files.iter().map(PathBuf::as_path).chain(self.store.source().file());
        self.watch.follow(files.flat_map(directories).collect());
    }

    fn warn(&mut self) {
        let warnings = self.store.load().warnings();
        self.told.retain(|warning, at| warnings.contains(warning) && at.elapsed() < SAY_AGAIN);
        for warning in warnings {
            self.told.entry(warning).or_insert_with_key(|warning| {
                warn!("{warning}");
                Instant::now()
            });
        }
    }
}

fn reload(store: &Store) -> Result<(), String> {
    let applied = store.reload(Change::by("SIGHUP", Persistence::Required));
    applied.map(|_| ()).map_err(|error| error.to_string())
}

/// The next trigger, when the files have been quiet for a while; `None` when nobody is left who could ask.
fn next(awaited: &Receiver<Trigger>) -> Option<Trigger> {
    let mut trigger = match awaited.recv_timeout(LOOK) {
        Ok(trigger) => trigger,
        Err(RecvTimeoutError::Timeout) => return Some(Trigger::FileChanged),
        Err(RecvTimeoutError::Disconnected) => return None,
    };
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

/// Sends a trigger whenever something happens in one of the directories that it follows.
struct Watch {
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
}

impl Watch {
    fn new(triggers: Sender<Trigger>) -> Self {
        let handler = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // The thread ends only with the process.
                let _ = triggers.send(Trigger::FileChanged);
            }
        };
        let watcher = notify::recommended_watcher(handler);
        let watcher = watcher.inspect_err(|error| {
            warn!(%error, ?LOOK, "nobody tells of changes of files, which are looked at from time to time");
        });
        Watch { watcher: watcher.ok(), directories: BTreeSet::new() }
    }

    /// Follows these directories, and no others.
    fn follow(&mut self, directories: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.directories.difference(&directories) {
            // One that has been deleted is not watched any more.
            let _ = watcher.unwatch(gone);
        }
        self.directories.retain(|directory| directories.contains(directory));
        for directory in directories {
            if !self.directories.contains(&directory)
                && watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok()
            {
                self.directories.insert(directory);
            }
        }
    }
}

/// The directory of `file`, and that of what it is a link to.
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
