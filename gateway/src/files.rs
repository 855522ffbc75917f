//! Files that others change while the gateway runs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What tells whether a file is still the same one, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    path: PathBuf,
    inode: (u64, u64),
    length: u64,
    modified: (i64, i64),
}

impl Fingerprint {
    /// That of the file that is there now; `None` where there is none.
    pub fn of(file: &Path) -> Option<Self> {
        let path = file.canonicalize().ok()?;
        let found = path.metadata().ok()?;
        let (inode, modified) = ((found.dev(), found.ino()), (found.mtime(), found.mtime_nsec()));
        Some(Fingerprint { path, inode, length: found.len(), modified })
    }
}
