//! The files of the repository: their list, their text, and the repair of faults.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::Fault;
use crate::markdown::Document;

/// Directories that tools create and git ignores.
const MADE: [&str; 4] = [".git", "target", "node_modules", "docs/book"];

/// Directory with the files of this repository, or with the files of a test.
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// Returns this repository.
    pub fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize();
        Repository::at(root.unwrap_or_else(|error| panic!("cannot find the root of the workspace: {error}")))
    }

    /// Returns a repository in any directory.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Repository { root: root.into() }
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the paths of all files that people wrote, from the root, sorted. They are read from the disk
    /// and not from git, so that a check has the same result before and after a commit, and in an archive
    /// without git.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            let entries = fs::read_dir(&directory).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
            let entries =
                entries.unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
            for entry in entries {
                let path = entry.path();
                let file = path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy().into_owned();
                let made = MADE.iter().any(|made| file == *made || file.ends_with(&format!("/{made}")));
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && !made => directories.push(path),
                    Ok(kind) if kind.is_file() => files.push(file),
                    _ => {}
                }
            }
        }
        files.sort();
        files
    }

    /// Returns all Markdown files, parsed.
    pub fn documents(&self) -> Vec<Document> {
        let files = self.files();
        let pages = files.iter().filter(|file| file.ends_with(".md"));
        pages.map(|file| Document::parse(file, &self.read(file))).collect()
    }

    /// Returns the text of a file.
    ///
    /// # Panics
    /// Panics if the file cannot be read.
    pub fn read(&self, file: &str) -> String {
        self.find(file).unwrap_or_else(|| panic!("cannot read {file}"))
    }

    /// Returns the text of a file, if it exists and is text.
    pub fn find(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.root.join(file)).ok()
    }

    /// Applies the fixes of the faults. Returns the faults that a person must repair.
    pub fn mend(&self, faults: Vec<Fault>) -> Vec<Fault> {
        let (mut fixes, mut left) = (BTreeMap::<String, Vec<_>>::new(), Vec::new());
        for mut fault in faults {
            match fault.fix.take() {
                Some(fix) => fixes.entry(fault.file).or_default().push(fix),
                None => left.push(fault),
            }
        }
        for (file, mut fixes) in fixes {
            let mut text = self.read(&file);
            // The last fix is applied first, so that the positions of earlier ones stay valid.
            fixes.sort_by_key(|fix| std::cmp::Reverse(fix.range.start));
            // Two faults in one block have the same fix.
            fixes.dedup();
            for fix in fixes {
                text.replace_range(fix.range, &fix.text);
            }
            if let Err(error) = fs::write(self.root.join(&file), text) {
                left.push(Fault::new(&file, 0, format!("cannot be rewritten: {error}")));
            }
        }
        left
    }
}

/// Resolves `target`, a path relative to `file`, to a path from the root; `None` if it lies outside the
/// repository.
pub fn relative_to(file: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => parts.pop().map(drop)?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// Returns the link from `file` to `target`; both are paths from the root.
pub fn link_from(file: &str, target: &str) -> String {
    let here: Vec<&str> = file.split('/').collect();
    let there: Vec<&str> = target.split('/').collect();
    let directories = here.len() - 1;
    let common = here[..directories].iter().zip(&there).take_while(|(a, b)| a == b).count();
    "../".repeat(directories - common) + &there[common..].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fix;

    #[test]
    fn files_excludes_directories_that_tools_create() {
        let directory = tempfile::tempdir().unwrap();
        for file in
            ["a.md", ".ci/run", "target/b.md", "docs/book/c.md", "docs/x/node_modules/d.md", "src/book/e.md"]
        {
            let file = directory.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let repository = Repository::at(directory.path());
        assert_eq!(repository.files(), [".ci/run", "a.md", "src/book/e.md"]);
        assert_eq!(repository.documents().len(), 2);
    }

    #[test]
    fn mend_applies_fixes_and_returns_other_faults() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.md"), "one two three").unwrap();
        let repository = Repository::at(directory.path());
        let fix =
            |range, text: &str| Fault::fixable("a.md", 1, "stale", Fix { range, text: text.to_owned() });
        let left = repository.mend(vec![
            fix(0..3, "eins"),
            Fault::new("a.md", 1, "sad"),
            fix(8..13, "drei"),
            fix(8..13, "drei"),
        ]);
        assert_eq!(left, [Fault::new("a.md", 1, "sad")]);
        assert_eq!(repository.read("a.md"), "eins two drei");
    }

    #[test]
    fn relative_to_reverses_link_from() {
        for (file, target, link) in [
            ("README.md", "gateway/src/lib.rs", "gateway/src/lib.rs"),
            ("docs/src/a.md", "docs/src/b.md", "b.md"),
            ("docs/src/deep/a.md", "docs/exercises/x.rs", "../../exercises/x.rs"),
        ] {
            assert_eq!(link_from(file, target), link);
            assert_eq!(relative_to(file, link).unwrap(), target);
        }
        assert_eq!(relative_to("a.md", "../outside"), None);
        assert_eq!(relative_to("a.md", "/etc/passwd"), None);
    }
}
