//! Check that the patches of the chapter "Write your own policy" fit the gateway: they apply to a copy of the workspace,
//! and the result compiles. Only types are checked, because a whole build would take minutes.

use std::fs;
use std::path::Path;
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

/// Copies the files of the repository. Files that are the same already keep their time, so that cargo does not compile
/// them again.
fn copy_files(repository: &Repository, copy: &Path) -> std::io::Result<()> {
    for file in repository.files() {
        let (from, to) = (repository.root().join(&file), copy.join(&file));
        let content = fs::read(from)?;
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(to, content)?;
    }
    // The file of the last run would make the patch fail.
    for file in ["gateway/tests/it/country.rs", "gateway/src/policy/country.rs"] {
        let _ = fs::remove_file(copy.join(file));
    }
    Ok(())
}

/// Runs a command. Returns what it said if it failed.
fn failure(command: &mut Command) -> Option<String> {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}
