//! The files of the repository: which there are, what they say, and how a fix is written back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::Fault;
use crate::markdown::Document;

/// Directories that tools make, all of them ignored by git.
const MADE: [&str; 4] = [".git", "target", "node_modules", "docs/book"];

/// A directory with this repository's files, or a test's own.
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// This one.
    pub fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize();
        Repository::at(root.unwrap_or_else(|error| panic!("the workspace's root is not there: {error}")))
    }

    /// Any directory.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Repository { root: root.into() }
    }

    /// Its root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every file that people wrote, from the root, sorted. They are read from the disk and not from git: so
    /// a check says the same before a commit as after it, and in an archive without git.
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

    /// Every Markdown file, parsed.
    pub fn documents(&self) -> Vec<Document> {
        let files = self.files();
        let pages = files.iter().filter(|file| file.ends_with(".md"));
        pages.map(|file| Document::parse(file, &self.read(file))).collect()
    }

    /// A file's text.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn read(&self, file: &str) -> String {
        self.find(file).unwrap_or_else(|| panic!("cannot read {file}"))
    }

    /// A file's text, if it is there.
    pub fn find(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.root.join(file)).ok()
    }

    /// Writes every fix that comes with a fault; what is left is for a person.
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
            // From the last to the first: what stands before a fix keeps its place.
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

/// The path, from the root, of what `file` calls `target`; none where that lies outside the repository.
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

/// How a link in `file` names `target`; both are paths from the root.
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
    fn files_are_those_that_people_wrote() {
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
    fn fixes_are_written_and_other_faults_left() {
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
    fn paths_go_both_ways() {
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
