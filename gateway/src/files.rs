//! Files that others write, and change while the gateway runs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The most that a file may have which is read whole.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is in `file`. Nothing is waited for (a pipe), and nothing read without end (a device).
///
/// # Errors
/// Why it cannot be read, with its name.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    let shown = file.display();
    let found = std::fs::metadata(file);
    if found.as_ref().is_ok_and(|found| !found.is_file() || found.len() > MAX_BYTES) {
        return Err(format!("'{shown}' is no file of at most {} KiB", MAX_BYTES / 1024));
    }
    found.and_then(|_| std::fs::read(file)).map_err(|error| format!("cannot read '{shown}': {error}"))
}

/// The text in `file`, without the mark at its beginning by which some editors say that it is UTF-8 (a "BOM"): it would
/// be part of the first name.
///
/// # Errors
/// Why it cannot be read, with its name.
pub fn read_text(file: &Path) -> Result<String, String> {
    let text = String::from_utf8(read(file)?);
    let text = text.map_err(|_| format!("'{}' is no text in UTF-8", file.display()))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_an_end_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read(&file), Ok(b"text".to_vec()));
        std::fs::write(&file, "\u{feff}alice").unwrap();
        assert_eq!(read_text(&file), Ok("alice".to_owned()));
        std::fs::write(&file, b"J\xfcrgen").unwrap();
        assert!(read_text(&file).unwrap_err().ends_with("is no text in UTF-8"));
        std::fs::write(&file, vec![b'x'; 1 + MAX_BYTES as usize]).unwrap();
        for other in [&*file, directory.path(), Path::new("/dev/zero")] {
            let why = read(other).unwrap_err();
            assert!(why.ends_with("is no file of at most 1024 KiB"), "{why}");
        }
        assert!(read(&directory.path().join("none")).unwrap_err().starts_with("cannot read '"));
    }
}
