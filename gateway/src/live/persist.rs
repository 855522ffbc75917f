//! Writes a configuration to its file atomically: a reader always finds either the old text or the new text.
//!
//! The new text is written to a draft file in the same directory. The draft reaches the disk before it replaces
//! the file. A file that is a mount point cannot be replaced in this way, so it is overwritten in place.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use tracing::{info, warn};

use crate::util::files;
use crate::util::files::Replaced;

/// Reason why a configuration was not written to its file. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The file was edited after the gateway had last read or written it.
    #[error("it was edited at the same moment; try again")]
    Edited,
    /// Error of the operating system.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Replaces the content of `file` with `text`, if `is_as_known` returns true just before the replacement. If
/// `file` is a symbolic link, its target is replaced and the link stays.
///
/// # Errors
/// See [`KeepError`].
pub(super) fn keep(file: &Path, text: &str, is_as_known: impl Fn() -> bool) -> Result<(), KeepError> {
    let file = file.canonicalize()?;
    let draft = files::draft(&file);
    // Mode 0600 keeps other users from reading the draft until the draft gets the file's permissions.
    let written = fs::metadata(&file)
        .and_then(|before| files::write_draft(&draft, text.as_bytes(), 0o600, Some(&before)));
    let replaced = match written {
        Ok(()) if is_as_known() => files::replace(&file, &draft).map_err(KeepError::from),
        // A writable file in a read-only directory is a mount point.
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
        // A leftover draft would only take up space.
        let _ = fs::remove_file(&draft);
    })?;
    let shown = file.display();
    if replaced == Replaced::Overwritten {
        info!(
            "{shown} was overwritten in place, because it is a mount point; mount its directory, so that it \
             can be replaced atomically"
        );
        return Ok(());
    }
    // A failure here is only a warning: the file is already replaced.
    if let Err(error) = files::sync_directory(&file) {
        warn!(
            %error,
            file = %shown,
            "the file is written, but after a power failure the old one may be back"
        );
    }
    Ok(())
}

fn is_writable(file: &Path) -> bool {
    OpenOptions::new().append(true).open(file).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::util::files::draft;

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
    fn failed_write_leaves_file_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        assert!(always(&file, "new").is_err());
        fs::write(&file, "old").unwrap();
        // The draft cannot be made, because a directory has its name.
        fs::create_dir(draft(&file)).unwrap();
        assert!(always(&file, "new").is_err());
        fs::remove_dir(draft(&file)).unwrap();
        let error = keep(&file, "new", || false).unwrap_err();
        assert!(matches!(error, KeepError::Edited), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn draft_that_is_link_or_pipe_is_not_written_to() {
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
