//! Files and directories that only the gateway's user may use.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

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
