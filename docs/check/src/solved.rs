//! Starters that a learner has solved in place. The checks of starters are for authors. They must not fail
//! because a learner has done the exercise, so they skip a solved starter, and say so.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;

use crate::exercises::DIRECTORY;
use crate::repository::Repository;

/// Commits that a starter is compared with: the one that is checked out, and the one that was cloned, because
/// a learner may have committed solutions.
const COMMITS: [&str; 2] = ["HEAD", "origin/HEAD"];

/// Starters that differ from the ones in git.
#[derive(Debug, Default)]
pub struct Changed(BTreeSet<String>);

impl Changed {
    /// Returns the starters that have been changed in this repository. In CI, and without git, there are none.
    pub fn starters(repository: &Repository) -> Self {
        if std::env::var_os("CI").is_some() {
            return Changed::default();
        }
        let files = COMMITS.iter().flat_map(|commit| differences(repository, commit));
        Changed(files.filter(|file| file.ends_with("/src/exercise.rs")).collect())
    }

    /// Returns true if a starter that looks solved has been changed, and prints that it is skipped.
    pub fn is_solved(&self, file: &str) -> bool {
        let solved = self.0.contains(file);
        if solved {
            let line = format!("check: {file} is solved, and not checked as a starter\n");
            // The line is written directly to standard error, because the test harness would capture it.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        solved
    }
}

/// Returns the exercises' files that differ from a commit, or none if git does not know the commit.
fn differences(repository: &Repository, commit: &str) -> Vec<String> {
    let mut git = Command::new("git");
    git.current_dir(repository.root()).args(["diff", "--name-only", "--relative", commit, "--", DIRECTORY]);
    match git.output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn starter_that_differs_from_git_is_solved() {
        let directory = tempfile::tempdir().unwrap();
        let starters = ["01_a", "02_b"].map(|name| format!("{DIRECTORY}/01_upstream/{name}/src/exercise.rs"));
        for file in &starters {
            let file = directory.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "// TODO").unwrap();
        }
        let repository = Repository::at(directory.path());
        assert!(differences(&repository, "HEAD").is_empty(), "without git, nothing is known to be changed");

        let git = |arguments: &[&str]| {
            let author = ["-c", "user.name=a", "-c", "user.email=a@localhost"];
            let mut git = Command::new("git");
            git.current_dir(directory.path()).args(author).args(arguments);
            assert!(git.output().unwrap().status.success(), "git {arguments:?}");
        };
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "starters"]);
        fs::write(directory.path().join(&starters[1]), "it();").unwrap();
        assert_eq!(differences(&repository, "HEAD"), starters[1..]);
        assert!(differences(&repository, "origin/HEAD").is_empty());

        let changed = Changed(differences(&repository, "HEAD").into_iter().collect());
        assert_eq!([&starters[0], &starters[1]].map(|file| changed.is_solved(file)), [false, true]);
    }
}
