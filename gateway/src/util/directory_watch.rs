//! Watch on directories, by inotify: it reports that a file in one of them was replaced, or was written and closed.
//!
//! A write alone is not reported, although inotify could. The gateway's own log may stand in such a directory, and each of
//! its lines would wake two threads.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

/// Watch on a set of directories. It lasts as long as the process.
pub struct DirectoryWatch {
    #[cfg(target_os = "linux")]
    inotify: std::sync::Arc<nix::sys::inotify::Inotify>,
    #[cfg(target_os = "linux")]
    watched: std::collections::BTreeMap<PathBuf, nix::sys::inotify::WatchDescriptor>,
}

#[cfg(target_os = "linux")]
impl DirectoryWatch {
    /// Starts a thread that calls `report` for each change. No directory is watched yet.
    ///
    /// # Errors
    /// Returns the system's error if it has no watch or no thread left.
    pub fn start(report: impl Fn() + Send + 'static) -> io::Result<Self> {
        use nix::sys::inotify::{InitFlags, Inotify};

        let inotify = std::sync::Arc::new(Inotify::init(InitFlags::IN_CLOEXEC)?);
        let source = inotify.clone();
        // A read fails only if a signal interrupts it, and then the next one waits again.
        let read = move || loop {
            if source.read_events().is_ok_and(|events| !events.is_empty()) {
                report();
            }
        };
        std::thread::Builder::new().name("files".to_owned()).spawn(read)?;
        Ok(DirectoryWatch { inotify, watched: Default::default() })
    }

    /// Watches these directories and no others. A directory that does not exist is tried again at the next call.
    pub fn follow(&mut self, directories: &BTreeSet<PathBuf>) {
        use nix::sys::inotify::AddWatchFlags as Event;

        let replaced = Event::IN_CREATE | Event::IN_DELETE | Event::IN_MOVE | Event::IN_CLOSE_WRITE;
        let moved = Event::IN_DELETE_SELF | Event::IN_MOVE_SELF | Event::IN_ONLYDIR;
        self.watched.retain(|directory, watch| {
            let is_followed = directories.contains(directory);
            if !is_followed {
                // The error is ignored: a directory that was deleted is not watched any more.
                let _ = self.inotify.rm_watch(*watch);
            }
            is_followed
        });
        for directory in directories {
            // A directory that has replaced another one at the same path has a watch of its own.
            if let Ok(watch) = self.inotify.add_watch(directory, replaced | moved) {
                self.watched.insert(directory.clone(), watch);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl DirectoryWatch {
    /// Returns an error, because this system has no inotify.
    ///
    /// # Errors
    /// Always returns an error of the kind `Unsupported`.
    pub fn start(_report: impl Fn() + Send + 'static) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Does nothing.
    pub fn follow(&mut self, _directories: &BTreeSet<PathBuf>) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Time in which a report must arrive. It is long because other tests run at the same time.
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn changed_files_are_reported_and_lines_of_a_log_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let inside = |name: &str| directory.path().join(name);
        let mut log = fs::File::create(inside("gateway.log")).unwrap();
        let (reports, reported) = mpsc::channel();
        let mut watch = DirectoryWatch::start(move || reports.send(()).unwrap()).unwrap();
        watch.follow(&BTreeSet::from([directory.path().to_owned()]));
        for _ in 0..100 {
            log.write_all(b"line\n").unwrap();
        }
        // The events of a directory arrive in their order, so the first report is that of the marker: nothing came before.
        fs::create_dir(inside("marker")).unwrap();
        reported.recv_timeout(SOON).unwrap();
        assert!(reported.try_recv().is_err(), "a line of the log was reported");
        let next = || {
            reported.recv_timeout(SOON).unwrap();
            while reported.try_recv().is_ok() {}
        };
        fs::rename(inside("marker"), inside("moved")).unwrap();
        next();
        fs::remove_dir(inside("moved")).unwrap();
        next();
        drop(log);
        reported.recv_timeout(SOON).unwrap();
    }

    #[test]
    fn later_directory_is_followed_and_one_that_is_left_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        fs::create_dir(&old).unwrap();
        let (reports, reported) = mpsc::channel();
        let mut watch = DirectoryWatch::start(move || reports.send(()).unwrap()).unwrap();
        watch.follow(&BTreeSet::from([old.clone(), new.clone()]));
        fs::create_dir(&new).unwrap();
        watch.follow(&BTreeSet::from([new.clone()]));
        while reported.recv_timeout(Duration::from_millis(50)).is_ok() {}
        fs::create_dir(old.join("unseen")).unwrap();
        fs::create_dir(new.join("seen")).unwrap();
        reported.recv_timeout(SOON).unwrap();
    }
}
