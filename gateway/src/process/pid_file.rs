//! The file with the process's id (`proxy.pid_file`), for whoever wants to signal it: scripts, and the process
//! that is to take over from it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tracing::warn;

use crate::util::files;

/// A file with this process's id. On drop it goes, if it still holds that.
pub struct PidFile {
    path: PathBuf,
    /// What becomes the file; `None` when it has.
    draft: Option<PathBuf>,
    /// Whether it is no longer this process's to remove.
    given_away: bool,
}

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {path} (proxy.pid_file): {source}; its directory must exist, and be writable for the user that \
     the gateway runs as"
)]
pub struct PidFileError {
    path: String,
    source: io::Error,
}

impl PidFile {
    /// Writes all but the name, so that a directory that cannot be written is found before anything serves.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn prepare(path: &Path) -> Result<Self, PidFileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let written = match fs::remove_file(&draft) {
            // Left behind by a process of the same id, which is no more.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::File::create_new(&draft).and_then(|mut file| writeln!(file, "{}", std::process::id())),
        };
        written.map_err(|source| PidFileError { path: path.display().to_string(), source })?;
        Ok(PidFile { path: path.to_owned(), draft: Some(draft), given_away: false })
    }

    /// Puts it in its place, in one step.
    pub fn publish(&mut self) {
        let Some(draft) = self.draft.take() else { return };
        let text = format!("{}\n", std::process::id());
        if let Err(error) = files::replace(&self.path, &draft, text.as_bytes()) {
            let path = self.path.display();
            warn!(%error, %path, "the process's id cannot be written (proxy.pid_file)");
            self.draft = Some(draft);
        }
    }

    /// It is the successor's from now on.
    pub fn give_away(&mut self) {
        self.given_away = true;
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let own = Pid::this().as_raw();
        let removed = match &self.draft {
            Some(draft) => fs::remove_file(draft),
            None if !self.given_away && written_in(&self.path) == Some(own) => remove(&self.path),
            None => Ok(()),
        };
        if let Err(error) = removed {
            let path = self.path.display();
            warn!(%error, %path, "the file with the process's id cannot be removed (proxy.pid_file)");
        }
    }
}

/// The gateway whose id the file at `path` holds: `None` where there is no such file, and where no process of that
/// id runs, or another program has got it since.
pub fn running_gateway(path: &Path) -> Option<i32> {
    parse_running(&fs::read_to_string(path).ok()?)
}

/// The same for the id that `text` is.
pub fn parse_running(text: &str) -> Option<i32> {
    let pid = text.trim().parse().ok().filter(|pid| *pid > 1 && *pid != Pid::this().as_raw())?;
    match kill(Pid::from_raw(pid), None) {
        // It runs, and whoever signals it will hear that only its user or root may.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(_) => return None,
    }
    let name = |process: &str| fs::read(format!("/proc/{process}/comm")).ok();
    let is_gateway = name(&pid.to_string())? == name("self")?;
    is_gateway.then_some(pid)
}

/// Removes the file, or empties it where it is a mount of its own, which cannot be removed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => files::overwrite(path, b""),
        removed => removed,
    }
}

fn written_in(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_from_publish_to_drop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.pid");
        let mut file = PidFile::prepare(&path).unwrap();
        assert!(!path.exists());
        file.publish();
        assert_eq!(written_in(&path), Some(Pid::this().as_raw()));
        drop(file);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_another_process_wrote_stays_and_so_does_what_was_given_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.pid");
        let mut file = PidFile::prepare(&path).unwrap();
        file.publish();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(written_in(&path), Some(1));

        let mut file = PidFile::prepare(&path).unwrap();
        file.publish();
        file.give_away();
        drop(file);
        assert!(path.exists());
        assert_eq!(running_gateway(&path), None, "nobody signals itself");
    }

    #[test]
    fn an_id_that_is_no_running_gateway_is_not_signalled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.pid");
        assert_eq!(running_gateway(&path), None);
        for text in ["", "nonsense", "-1", "0", "1", "2147483647"] {
            fs::write(&path, text).unwrap();
            assert_eq!(running_gateway(&path), None, "{text}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_clear_error() {
        let error = PidFile::prepare(Path::new("/nowhere/gateway.pid")).err().unwrap().to_string();
        assert!(error.starts_with("cannot write /nowhere/gateway.pid (proxy.pid_file): "), "{error}");
    }
}
