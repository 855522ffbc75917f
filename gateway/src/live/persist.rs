//! Writes a configuration to its file, so that whoever reads it, at whatever moment, finds the old one or the
//! new one: into a file beside it, which reaches the disk before it takes the other's place. Only a file that is a mount
//! of its own cannot be replaced in this way, and is written over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::util::files;
use crate::util::files::Replaced;

/// Why a configuration was not written to its file. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It was edited at the same time.
    #[error("it was edited at this very moment; ask again")]
    Edited,
    /// The system's reason.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Replaces what is in `file`, where `is_as_known` holds at the last moment. A link stays one: what it leads
/// to is replaced.
///
/// # Errors
/// See [`KeepError`].
pub(super) fn keep(file: &Path, text: &str, is_as_known: impl Fn() -> bool) -> Result<(), KeepError> {
    let file = file.canonicalize()?;
    let draft = draft(&file);
    let replaced = match write(&draft, &file, text) {
        Ok(()) if is_as_known() => files::replace(&file, &draft, text.as_bytes()).map_err(KeepError::from),
        // Where the file can be written to and its directory cannot, the file is a mount.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem && is_writable(&file) => {
            match is_as_known() {
                true => files::overwrite(&file, text.as_bytes())
                    .map(|()| Replaced::Overwritten)
                    .map_err(KeepError::from),
                false => Err(KeepError::Edited),
            }
        }
        Ok(()) => Err(KeepError::Edited),
        Err(error) => Err(error.into()),
    };
    let replaced = replaced.inspect_err(|_| {
        // What is left of it would only take up space.
        let _ = fs::remove_file(&draft);
    })?;
    let shown = file.display();
    if replaced == Replaced::Overwritten {
        info!(
            "{shown} was written in place, since it is mounted by itself; mount its directory to have it replaced whole"
        );
        return Ok(());
    }
    // The new name reaches the disk with its directory. The file is another one already, whatever comes of it.
    let synced = file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all());
    if let Err(error) = synced {
        warn!(%error, file = %shown, "the file is written, and may be the old one again after a power cut");
    }
    Ok(())
}

fn is_writable(file: &Path) -> bool {
    OpenOptions::new().append(true).open(file).is_ok()
}

/// Always the same name, so that a process that was killed while it wrote leaves one draft and not many.
fn draft(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}.draft"))
}

fn write(draft: &Path, file: &Path, text: &str) -> io::Result<()> {
    let before = fs::metadata(file)?;
    match fs::remove_file(draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Made anew, so that nothing is written through a link or into a pipe, and read by nobody meanwhile.
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    let (owner, group) = (before.uid(), before.gid());
    let made = new.metadata()?;
    if (made.uid(), made.gid()) != (owner, group) {
        // Who may not give files away has one of their own from now on.
        let _ = fchown(&new, Some(owner), Some(group));
    }
    new.set_permissions(before.permissions())?;
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn always(file: &Path, text: &str) -> Result<(), KeepError> {
        keep(file, text, || true)
    }

    #[test]
    fn a_file_is_replaced_and_its_permissions_and_links_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("gateway.toml"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("gateway.toml", &link).unwrap();
        always(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn what_cannot_be_written_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        assert!(always(&file, "new").is_err());
        fs::write(&file, "old").unwrap();
        // Somebody has put a directory where the draft would be.
        fs::create_dir(draft(&file)).unwrap();
        assert!(always(&file, "new").is_err());
        fs::remove_dir(draft(&file)).unwrap();
        let error = keep(&file, "new", || false).unwrap_err();
        assert!(matches!(error, KeepError::Edited), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_draft_that_is_a_link_or_a_pipe_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let (file, victim) = (directory.path().join("gateway.toml"), directory.path().join("victim"));
        fs::write(&file, "old").unwrap();
        fs::write(&victim, "mine").unwrap();
        symlink(&victim, draft(&file)).unwrap();
        always(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
        let made = std::process::Command::new("mkfifo").arg(draft(&file)).status().unwrap();
        assert!(made.success());
        always(&file, "newer").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "newer");
    }
}
