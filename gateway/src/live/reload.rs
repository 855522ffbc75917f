//! Reads the configuration again after SIGHUP or when its file has changed. Certificates, keys and users are
//! also read again when their files have changed.
//!
//! The gateway watches the directory of a file instead of the file, because editors rename a new file over the
//! old file, and Kubernetes swaps a symlink beside it. After any event in the directory, the gateway checks if
//! the file has changed. Only a configuration that differs from the running one is taken over.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::{Change, Persistence, Store};
use crate::telemetry::Metrics;
use crate::util::directory_watch::DirectoryWatch;
use crate::util::files::Fingerprint;

/// Time without events after which the files are read. The gateway waits because writing a file causes several
/// events.
const QUIET: Duration = Duration::from_millis(100);
/// Maximum wait for such a quiet time. After this time the files are read even if events keep coming.
const BUSY: Duration = Duration::from_secs(1);
/// Time without events after which the gateway looks at the files anyway: some file systems report no changes,
/// and a change through the management API may name new files.
const LOOK: Duration = Duration::from_secs(5);
/// Time after which a warning that still applies is logged again.
const SAY_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Reason to look at the files again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// The operator sent SIGHUP.
    Sighup,
    /// Something changed in the directory of a file, or it is time for a regular look.
    FileChanged,
}

/// Handle to the thread that reads the configuration again.
#[derive(Clone)]
pub struct Reloader {
    triggers: Sender<Trigger>,
}

impl Reloader {
    /// Starts the thread that makes `store` read its source and files again.
    pub fn start(store: Arc<Store>, metrics: Arc<Metrics>) -> Reloader {
        let (triggers, awaited) = mpsc::channel();
        // The first look finds changes that were made before the watch began.
        let _ = triggers.send(Trigger::FileChanged);
        let trigger = triggers.clone();
        let report = move || {
            // The thread ends only with the process.
            let _ = trigger.send(Trigger::FileChanged);
        };
        let watch = DirectoryWatch::start(report).inspect_err(|error| {
            warn!(
                %error,
                ?LOOK,
                "the system does not report changes of files; the gateway looks for them at intervals"
            );
        });
        let mut following = Following {
            watch: watch.ok(),
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

    /// Requests a reload, as SIGHUP does.
    pub fn request(&self) {
        // The thread ends only with the process.
        let _ = self.triggers.send(Trigger::Sighup);
    }
}

/// State of the thread that follows the files.
struct Following {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    /// Watch on the directories of the files; `None` if the system has none.
    watch: Option<DirectoryWatch>,
    /// Fingerprint of each file at the last look.
    seen: HashMap<PathBuf, Option<Fingerprint>>,
    last_error: Option<String>,
    /// Warnings that were logged, and the time of each.
    told: HashMap<String, Instant>,
}

impl Following {
    /// Looks at every file, and takes over what has changed.
    fn look(&mut self, trigger: Trigger) {
        let file = self.store.source().file().map(Path::to_owned);
        let config_changed = file.is_some_and(|file| self.has_changed(&file));
        // `any` would stop at the first change, but the fingerprint of each file must be updated.
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
            info!("the files are valid again");
        }
        // If an operator edits a file step by step, the same error is logged only once.
        if let Some(error) = &error
            && (trigger == Trigger::Sighup || self.last_error.as_ref() != Some(error))
        {
            error!("the configuration was not applied, and the old one stays in use: {error}");
        }
        self.last_error = error;
    }

    /// Returns true if `file` has changed since the last look.
    fn has_changed(&mut self, file: &Path) -> bool {
        let now = Fingerprint::of(file);
        let before = self.seen.insert(file.to_owned(), now.clone());
        before != Some(now)
    }

    fn watch_files(&mut self) {
        let files = self.store.files();
        let files = files.iter().map(PathBuf::as_path).chain(self.store.source().file());
        let watched = files.flat_map(directories).collect();
        self.watch.iter_mut().for_each(|watch| watch.follow(&watched));
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

/// Waits for the next trigger and for a quiet time after it. Returns `None` if all senders have been dropped.
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

/// Returns the directory of `file` and, if `file` is a symbolic link, the directory of the link's target.
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
    fn triggers_close_together_are_merged() {
        let (triggers, awaited) = mpsc::channel();
        for trigger in [Trigger::FileChanged, Trigger::Sighup, Trigger::FileChanged] {
            triggers.send(trigger).unwrap();
        }
        assert_eq!(next(&awaited), Some(Trigger::Sighup));
        drop(triggers);
        assert_eq!(next(&awaited), None);
    }
}
