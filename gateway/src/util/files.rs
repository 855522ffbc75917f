//! Access to files that other programs change while the gateway runs, and replacement of files that the gateway
//! writes.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tracing::warn;

/// Maximum size of a file that is read as a whole.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads `file`. The function does not block on a pipe, and does not read endlessly from a device.
///
/// # Errors
/// Returns an error with the file's name if it cannot be read, is not a regular file, or is too large.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    let shown = file.display();
    let found = std::fs::metadata(file);
    if found.as_ref().is_ok_and(|found| !found.is_file() || found.len() > MAX_BYTES) {
        return Err(format!("'{shown}' is not a regular file of at most {} KiB", MAX_BYTES / 1024));
    }
    found.and_then(|_| std::fs::read(file)).map_err(|error| format!("cannot read '{shown}': {error}"))
}

/// Reads the text in `file`. Some editors mark a file as UTF-8 with a byte order mark. The mark is removed, because
/// it would otherwise become part of the first name.
///
/// # Errors
/// Returns an error with the file's name if it cannot be read, or is not UTF-8.
pub fn read_text(file: &Path) -> Result<String, String> {
    let text = String::from_utf8(read(file)?);
    let text = text.map_err(|_| format!("'{}' is not UTF-8 text", file.display()))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// Returns the path of the draft in the directory of `file`. The name is fixed, so that processes that are killed
/// during a write leave at most one draft.
pub fn draft(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}.draft"))
}

/// Creates the file `draft` with `content`, and syncs it to the disk. Its permissions are `mode` until it gets the
/// owner and the permissions of `like`. An older draft, which a killed process has left, is replaced.
///
/// # Errors
/// Returns the error of the operating system. No draft is left, unless something that cannot be removed already has
/// its path.
pub fn write_draft(draft: &Path, content: &[u8], mode: u32, like: Option<&Metadata>) -> io::Result<()> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(draft, content, mode, like)
}

/// Creates a file as [`write_draft`] does, but returns an error if it exists.
///
/// # Errors
/// Returns the error of the operating system. No part of the file is left.
pub fn create(file: &Path, content: &[u8], mode: u32, like: Option<&Metadata>) -> io::Result<()> {
    // `create_new` prevents a write through a link or into a pipe. From the first byte on, only the users that `mode`
    // allows have access.
    let mut new = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    let mut fill = || {
        if let Some(like) = like {
            let (made, owner) = (new.metadata()?, (like.uid(), like.gid()));
            if (made.uid(), made.gid()) != owner {
                // If this process may not change the owner, its own user is the owner from now on.
                let _ = fchown(&new, Some(owner.0), Some(owner.1));
            }
            new.set_permissions(like.permissions())?;
        }
        new.write_all(content)?;
        new.sync_all()
    };
    fill().inspect_err(|_| {
        // An incomplete file would only use space on the disk.
        let _ = fs::remove_file(file);
    })
}

/// Syncs the directory of `file` to the disk, because a rename is durable only after that.
///
/// # Errors
/// Returns the error of the operating system.
pub fn sync_directory(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Method by which a file got its new content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The draft was renamed. A reader finds the old content or the new content, even after a power cut.
    Renamed,
    /// The file was overwritten, because it is a mount point. After a crash during the write, it contains only a part
    /// of the content.
    Overwritten,
}

/// Renames `draft` to `file`. A single file that is mounted into a container (`-v ./gateway.toml:/etc/gateway.toml`,
/// a `subPath`) is a mount point. The system refuses to replace a mount point (EBUSY), so such a file is overwritten.
/// After a success, the draft no longer exists.
///
/// # Errors
/// Returns the error of the operating system. The file is then unchanged, unless an overwrite failed and the
/// previous content could not be written back.
pub fn replace(file: &Path, draft: &Path) -> io::Result<Replaced> {
    match fs::rename(draft, file) {
        Ok(()) => Ok(Replaced::Renamed),
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            overwrite(file, &fs::read(draft)?)?;
            fs::remove_file(draft).map(|()| Replaced::Overwritten)
        }
        Err(error) => Err(error),
    }
}

/// Overwrites the content of `file`, which is a mount point. If the write fails, the previous content is
/// written back.
///
/// # Errors
/// Returns the error of the operating system, with advice for the operator.
pub fn overwrite(file: &Path, content: &[u8]) -> io::Result<()> {
    let told = |error: io::Error, outcome: &str| {
        let detail = format!(
            "it is a mount point, so it cannot be replaced, and cannot be written in place: {error}{outcome}; mount \
             its directory instead, or make the file writable"
        );
        io::Error::new(error.kind(), detail)
    };
    let mut before = Vec::new();
    let opened = OpenOptions::new().read(true).write(true).open(file);
    let opened = opened.and_then(|mut opened| opened.read_to_end(&mut before).map(|_| opened));
    let mut opened = opened.map_err(|error| told(error, ""))?;
    write_over(&mut opened, content).map_err(|error| match write_over(&mut opened, &before) {
        Ok(()) => told(error, ""),
        Err(_) => told(error, " (the previous content could not be restored: the file is damaged now)"),
    })
}

fn write_over(file: &mut File, content: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(content)?;
    // The file is truncated last: if the disk has no room for more, the previous content can still be
    // restored.
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// Attributes that show if a file has changed, without a read of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    path: PathBuf,
    inode: (u64, u64),
    length: u64,
    modified: (i64, i64),
}

impl Fingerprint {
    /// Returns the attributes of `file`; `None` if they cannot be read, for example because the file does not exist.
    pub fn of(file: &Path) -> Option<Self> {
        let path = file.canonicalize().ok()?;
        let found = path.metadata().ok()?;
        let (inode, modified) = ((found.dev(), found.ino()), (found.mtime(), found.mtime_nsec()));
        Some(Fingerprint { path, inode, length: found.len(), modified })
    }
}

/// Permission bits of the group and of other users, which must not be set.
const FOR_OTHERS: u32 = 0o077;

/// Creates `directory` unless it exists, for the gateway's user only. Permissions of other users are removed.
///
/// # Errors
/// Returns the error of the operating system.
pub fn private_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mode = fs::metadata(directory)?.permissions().mode();
    if mode & FOR_OTHERS != 0 {
        warn!(
            "other users could enter {}, which holds keys; their permissions were removed",
            directory.display()
        );
        fs::set_permissions(directory, Permissions::from_mode(mode & 0o700))?;
    }
    Ok(())
}

/// Returns the content of a file that only the gateway's user may use; `None` if it does not exist. Permissions of
/// other users are removed.
///
/// # Errors
/// Returns the error of the operating system.
pub fn read_private(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & FOR_OTHERS != 0 {
        warn!("other users could read {}, which holds a key; their permissions were removed", path.display());
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_refuses_directories_devices_and_large_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read(&file), Ok(b"text".to_vec()));
        std::fs::write(&file, "\u{feff}alice").unwrap();
        assert_eq!(read_text(&file), Ok("alice".to_owned()));
        std::fs::write(&file, b"J\xfcrgen").unwrap();
        assert!(read_text(&file).unwrap_err().ends_with("is not UTF-8 text"));
        std::fs::write(&file, vec![b'x'; 1 + MAX_BYTES as usize]).unwrap();
        for other in [&*file, directory.path(), Path::new("/dev/zero")] {
            let why = read(other).unwrap_err();
            assert!(why.ends_with("is not a regular file of at most 1024 KiB"), "{why}");
        }
        assert!(read(&directory.path().join("none")).unwrap_err().starts_with("cannot read '"));
    }

    #[test]
    fn overwrite_replaces_whole_content_and_keeps_inode() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "a longer text").unwrap();
        let inode = file.metadata().unwrap().ino();
        for text in ["short", "longer than it was before", ""] {
            overwrite(&file, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(file.metadata().unwrap().ino(), inode);
        let error = overwrite(Path::new("/proc/version"), b"x").unwrap_err().to_string();
        assert!(
            error.contains("cannot be written in place: ") && error.contains("mount its directory"),
            "{error}"
        );
    }

    #[test]
    fn draft_is_made_anew_and_other_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let (file, model) = (directory.path().join("file"), directory.path().join("model"));
        create(&model, b"", 0o640, None).unwrap();
        write_draft(&file, b"a longer text", 0o600, None).unwrap();
        write_draft(&file, b"text", 0o600, Some(&model.metadata().unwrap())).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
        let error = create(&file, b"other", 0o600, None).unwrap_err();
        assert_eq!((error.kind(), read(&file).unwrap()), (ErrorKind::AlreadyExists, b"text".to_vec()));
    }

    #[test]
    fn replace_renames_draft_to_file() {
        let directory = tempfile::tempdir().unwrap();
        let (file, draft) = (directory.path().join("file"), directory.path().join("draft"));
        std::fs::write(&draft, "new").unwrap();
        assert_eq!(replace(&file, &draft).unwrap(), Replaced::Renamed);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(replace(&file, &draft).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
