//! Files and directories that only the gateway's user may use.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

/// Permission bits of the group and of other users, which must not be set.
const FOR_OTHERS: u32 = 0o077;
/// Maximum size of a file. No file of the cache has a reason to be larger.
const MAX_BYTES: u64 = 1 << 20;

/// Makes the directory if it does not exist, and removes the permissions of other users.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
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

/// Returns the path of the draft for `path`. The name is always the same, so that killed processes leave one
/// draft and not many.
pub(super) fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.draft"))
}

/// Writes a draft and syncs it to the disk. If this fails, the draft is removed.
pub(super) fn write(draft: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The file is made anew, so that other users have no access from its first byte.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.inspect_err(|_| {
        // The rest of the draft would only take up space.
        let _ = fs::remove_file(draft);
    })
}

/// Returns the content of the file, if it exists. Removes the permissions of other users on it.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
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
