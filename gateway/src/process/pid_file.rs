//! Pid file (`proxy.pid_file`). Scripts and the successor read it in order to send signals to the process.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tracing::warn;

use crate::util::files;

/// File with the id of this process. On drop the file is removed, if it still holds that id.
pub struct PidFile {
    path: PathBuf,
    /// Temporary file that becomes the pid file; `None` after it has become the pid file.
    draft: Option<PathBuf>,
    /// True if a successor owns the file, so that this process must not remove it.
    given_away: bool,
}

/// Error of a pid file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {path} (proxy.pid_file): {source}; its directory must exist, and the user that the \
     gateway runs as must be allowed to write to it"
)]
pub struct PidFileError {
    path: String,
    source: io::Error,
}

impl PidFile {
    /// Writes the temporary file, so that an unwritable directory is found before the gateway serves.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn prepare(path: &Path) -> Result<Self, PidFileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
        files::write_draft(&draft, format!("{}\n", std::process::id()).as_bytes(), 0o666, None)
            .map_err(|source| PidFileError { path: path.display().to_string(), source })?;
        Ok(PidFile { path: path.to_owned(), draft: Some(draft), given_away: false })
    }

    /// Moves the file to its final path, in one step.
    pub fn publish(&mut self) {
        let Some(draft) = self.draft.take() else { return };
        if let Err(error) = files::replace(&self.path, &draft) {
            let path = self.path.display();
            warn!(%error, %path, "cannot write the process id (proxy.pid_file)");
            self.draft = Some(draft);
        }
    }

    /// Leaves the file to the successor.
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
            warn!(%error, %path, "cannot remove the pid file (proxy.pid_file)");
        }
    }
}

/// Returns the process id in the file at `path`, if it is the id of a running gateway. Returns `None` if the file is
/// missing, if no process has that id, or if another program has it now.
pub fn running_gateway(path: &Path) -> Option<i32> {
    parse_running(&fs::read_to_string(path).ok()?)
}

/// Returns the id in `text`, if it is the id of a running gateway.
pub fn parse_running(text: &str) -> Option<i32> {
    let pid = text.trim().parse().ok().filter(|pid| *pid > 1 && *pid != Pid::this().as_raw())?;
    match kill(Pid::from_raw(pid), None) {
        // The process runs. After EPERM, the caller gets the same error again when it sends a signal.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(_) => return None,
    }
    let name = |process: &str| fs::read(format!("/proc/{process}/comm")).ok();
    let is_gateway = name(&pid.to_string())? == name("self")?;
    is_gateway.then_some(pid)
}

/// Removes the file. If the file is a mount point, which cannot be removed, it is emptied.
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
    fn pid_file_exists_from_publish_to_drop() {
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
    fn drop_keeps_foreign_and_given_away_pid_files() {
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
    fn id_of_no_running_gateway_yields_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.pid");
        assert_eq!(running_gateway(&path), None);
        for text in ["", "nonsense", "-1", "0", "1", "2147483647"] {
            fs::write(&path, text).unwrap();
            assert_eq!(running_gateway(&path), None, "{text}");
        }
    }

    #[test]
    fn missing_directory_error_names_file_and_key() {
        let error = PidFile::prepare(Path::new("/nowhere/gateway.pid")).err().unwrap().to_string();
        assert!(error.starts_with("cannot write /nowhere/gateway.pid (proxy.pid_file): "), "{error}");
    }
}
