//! Writes a configuration to its file, so that whoever reads it, at whatever moment, finds the old one or the
//! new one: into a file beside it, which reaches the disk before it takes the other's place.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

/// Replaces what is in `file`. A link stays one: what it leads to is replaced.
///
/// # Errors
/// What the system says; then `file` is as it was.
pub(super) fn keep(file: &Path, text: &str) -> io::Result<()> {
    let file = file.canonicalize()?;
    let draft = draft(&file);
    write(&draft, &file, text).and_then(|()| fs::rename(&draft, &file)).inspect_err(|_| {
        // What is left of it would only take up space.
        let _ = fs::remove_file(&draft);
    })?;
    match file.parent() {
        // The new name reaches the disk with its directory.
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Always the same name, so that a process that was killed while it wrote leaves one draft and not many.
fn draft(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}.draft"))
}

fn write(draft: &Path, file: &Path, text: &str) -> io::Result<()> {
    let before = fs::metadata(file)?;
    let mut new = File::create(draft)?;
    new.set_permissions(before.permissions())?;
    let (owner, group) = (before.uid(), before.gid());
    let made = new.metadata()?;
    if (made.uid(), made.gid()) != (owner, group) {
        // Who may not give files away has one of their own from now on.
        let _ = fchown(&new, Some(owner), Some(group));
    }
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_and_its_permissions_and_links_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("gateway.toml"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("gateway.toml", &link).unwrap();
        keep(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn what_cannot_be_written_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        assert!(keep(&file, "new").is_err());
        fs::write(&file, "old").unwrap();
        // Somebody has put a directory where the draft would be.
        fs::create_dir(draft(&file)).unwrap();
        assert!(keep(&file, "new").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    }
}
