//! Search for the configuration file in the usual places, for operators who name no file.

use std::path::{Path, PathBuf};

/// Paths at which `search` looks for a file, in this order.
const PLACES: [&str; 3] = ["config.toml", "gateway.toml", "/etc/gateway/gateway.toml"];

/// Returns the configuration file in the current directory, or else the one in `/etc`; `None` if there is neither.
pub fn search() -> Option<PathBuf> {
    first_of(PLACES.into_iter().map(Path::new))
}

/// Returns the first path at which a file is. A directory is skipped. A file that cannot be read is not skipped, so
/// that the reader of the file can report the reason.
fn first_of<'p>(mut candidates: impl Iterator<Item = &'p Path>) -> Option<PathBuf> {
    candidates.find(|place| place.metadata().is_ok_and(|found| found.is_file())).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_place_with_a_file_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let candidates = ["config.toml", "gateway.toml", "etc.toml"].map(|name| directory.path().join(name));
        let found = || first_of(candidates.iter().map(PathBuf::as_path));
        assert_eq!(found(), None);
        for place in candidates.iter().rev() {
            std::fs::write(place, "").unwrap();
            assert_eq!(found().as_ref(), Some(place));
        }
        std::fs::remove_file(&candidates[0]).unwrap();
        std::fs::create_dir(&candidates[0]).unwrap();
        assert_eq!(found().as_ref(), Some(&candidates[1]), "a directory is not a configuration file");
    }
}
