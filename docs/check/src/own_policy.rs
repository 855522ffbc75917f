//! Check that the patches of the chapter "Write your own policy" fit the gateway: they apply to a copy of the workspace,
//! and the result compiles. Only types are checked, because a whole build would take minutes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fault;
use crate::packages::cargo;
use crate::repository::Repository;

/// Patches in the order in which a learner applies them.
const PATCHES: [&str; 2] =
    ["docs/exercises/own_policy_test.patch", "docs/exercises/own_policy_solution.patch"];

/// Returns a fault for the first patch that does not apply, or for a result that does not compile. A learner who has
/// changed the gateway as the chapter says gets no fault: the first patch is applied already.
///
/// # Panics
/// Panics if the copy cannot be made, or if cargo cannot be run.
pub fn check(repository: &Repository) -> Vec<Fault> {
    if repository.find("gateway/tests/it/country.rs").is_some() {
        eprintln!("own_policy: skipped, because this tree has the policy already");
        return Vec::new();
    }
    let copy = repository.root().join("target/own_policy");
    copy_files(repository, &copy).unwrap_or_else(|error| panic!("cannot make {}: {error}", copy.display()));
    for patch in PATCHES {
        let mut apply = Command::new("git");
        // Without the ceiling, git would take the paths of the patch as those of the repository around the copy.
        apply.arg("apply").arg(repository.root().join(patch)).current_dir(&copy);
        apply.env("GIT_CEILING_DIRECTORIES", repository.root().join("target"));
        if let Some(said) = failure(&mut apply) {
            return vec![Fault::new(patch, 0, format!("does not apply to the gateway: {said}"))];
        }
    }
    let mut compile = cargo(repository);
    let arguments = ["check", "--offline", "--quiet", "-p", "gateway", "--tests", "--target-dir"];
    compile.current_dir(&copy).args(arguments).arg(repository.root().join("target"));
    let fault = |said: String| Fault::new(PATCHES[1], 0, format!("does not compile:\n{said}"));
    failure(&mut compile).map(fault).into_iter().collect()
}

/// Makes `copy` hold the files of the repository, and no other. Files that are the same already keep their time, so that
/// cargo does not compile them again.
fn copy_files(repository: &Repository, copy: &Path) -> std::io::Result<()> {
    let files: BTreeSet<PathBuf> = repository.files().into_iter().map(|file| copy.join(file)).collect();
    fs::create_dir_all(copy)?;
    remove_others(copy, &files)?;
    for (file, to) in repository.files().iter().map(|file| (file, copy.join(file))) {
        let content = fs::read(repository.root().join(file))?;
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(to, content)?;
    }
    Ok(())
}

/// Removes everything below `directory` that is not one of `files`: what the last run has added, and what the repository
/// has moved or removed since.
fn remove_others(directory: &Path, files: &BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if !kind.is_dir() {
            if !files.contains(&path) {
                fs::remove_file(path)?;
            }
        } else if files.iter().any(|file| file != &path && file.starts_with(&path)) {
            remove_others(&path, files)?;
        } else {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// Runs a command. Returns what it said if it failed.
fn failure(command: &mut Command) -> Option<String> {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}
