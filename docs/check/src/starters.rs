//! Check that every starter compiles without a warning, and fails its test with a helpful message: the
//! expected value, the actual value and the hint. A panic in the starter, a hang or a closed connection is
//! not helpful.
//!
//! The starters are built together, with the whole workspace selected. So the dependencies have the same
//! features as in every other build, and Pingora is not compiled again.

use std::path::{Path, PathBuf};

use cargo_metadata::diagnostic::DiagnosticLevel;
use cargo_metadata::{Artifact, CompilerMessage};

use crate::build::Build;
use crate::exercises::DIRECTORY;
use crate::harness::{PATIENCE, failed, run_for};
use crate::packages::cargo;
use crate::repository::Repository;
use crate::solved::Changed;
use crate::{Fault, in_parallel};

/// Actual values that mean that no response came. They do not help a learner.
const NOTHING: [&str; 6] = [
    "no complete response within",
    "connection closed",
    "connection reset",
    "connection error",
    "Connection reset",
    "Broken pipe",
];

/// Builds and runs every starter. Returns a fault for each one that warns, passes, or fails without help. A
/// starter that a learner has solved is skipped.
///
/// # Panics
/// Panics if cargo cannot be run, or code outside the exercises does not compile.
pub fn check(repository: &Repository) -> Vec<Fault> {
    let build = build(repository, &["test", "--test", "check", "--no-run"]);
    let starters: Vec<_> = build.artifacts.iter().filter_map(|a| program(repository, a, "test")).collect();
    // Four run at once on two cores, because they mostly wait.
    let ended = in_parallel(4, &starters, |(directory, program)| run(repository, directory, program));
    let changed = Changed::starters(repository);
    let (mut faults, mut solved) = (Vec::new(), Vec::new());
    for ((directory, _), ended) in starters.iter().zip(ended) {
        let file = format!("{directory}/src/exercise.rs");
        match ended {
            Ended::Passed if changed.is_solved(&file) => solved.push(format!("{directory}/")),
            Ended::Passed => faults.push(Fault::new(&file, 0, "the starter passes its tests")),
            Ended::Failed(reasons) => faults
                .extend(reasons.into_iter().map(|what| Fault::new(&file, 0, format!("the starter {what}")))),
        }
    }
    let mut warnings: Vec<Fault> = build.messages.iter().filter_map(|m| warning(repository, m)).collect();
    warnings.retain(|fault| !solved.iter().any(|directory| fault.file.starts_with(directory)));
    faults.splice(0..0, warnings);
    // The starter and the solution of a program share one output file. This check may be a part of
    // `cargo test --features solution`, which needs the solution there, so it is built again.
    let programs = build.artifacts.iter().filter(|artifact| program(repository, artifact, "bin").is_some());
    for artifact in programs {
        self::build(repository, &["build", "--features", "solution", "--bin", &artifact.target.name]);
    }
    faults
}

fn build(repository: &Repository, arguments: &[&str]) -> Build {
    let mut command = cargo(repository);
    let build = Build::run(command.args(arguments).args(["--workspace", "--message-format=json"]), |_| ());
    assert!(build.success, "cargo {} --workspace:\n{}", arguments.join(" "), build.errors());
    build
}

/// Returns the directory of the exercise that a source belongs to.
fn exercise(repository: &Repository, source: &Path) -> Option<String> {
    let path = source.strip_prefix(repository.root()).ok()?;
    let parts: Vec<_> = path.components().take(4).collect();
    let directory = parts.iter().collect::<PathBuf>();
    (parts.len() == 4 && path.starts_with(DIRECTORY)).then(|| directory.display().to_string())
}

/// Returns the exercise's directory and the built program, if it is an exercise's program of this kind.
fn program(repository: &Repository, artifact: &Artifact, kind: &str) -> Option<(String, PathBuf)> {
    let directory = exercise(repository, artifact.target.src_path.as_std_path())?;
    let is_kind = artifact.target.kind.iter().any(|of| of.to_string() == kind);
    Some((directory, artifact.executable.clone().filter(|_| is_kind)?.into()))
}

/// Returns a fault if the message is a warning about a starter. Cargo repeats the warnings of cached builds.
fn warning(repository: &Repository, message: &CompilerMessage) -> Option<Fault> {
    let directory = exercise(repository, message.target.src_path.as_std_path())?;
    let place = message.message.spans.first().map(|span| (span.file_name.clone(), span.line_start));
    let (file, line) = place.unwrap_or((directory, 0));
    // Summaries such as "1 warning emitted" have no place and add no information.
    let says = DiagnosticLevel::Warning == message.message.level && line != 0;
    says.then(|| {
        Fault::new(&file, line, format!("the starter does not compile cleanly: {}", message.message.message))
    })
}

/// End of a starter's tests.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// Success of every test: the starter is solved.
    Passed,
    /// Failure of some tests. Each reason says why this does not help a learner.
    Failed(Vec<String>),
}

/// Runs a starter's tests in the directory in which cargo would run them.
fn run(repository: &Repository, directory: &str, program: &Path) -> Ended {
    match run_for(PATIENCE, &repository.root().join(directory), program, &[]) {
        Ok((Some(status), said)) => judge(status.code(), &said),
        Ok((None, said)) => {
            Ended::Failed(vec![format!("still runs after {PATIENCE:?}; it must fail and not hang\n{said}")])
        }
        Err(error) => Ended::Failed(vec![format!("cannot be run: {error}")]),
    }
}

/// Judges the output of a starter's tests.
fn judge(code: Option<i32>, said: &str) -> Ended {
    match code {
        Some(101) => {}
        Some(0) => return Ended::Passed,
        code => {
            return Ended::Failed(vec![format!("ends with {code:?}, and not with a failed test\n{said}")]);
        }
    }
    let failed = failed(said);
    let mut faults = Vec::new();
    for failed in &failed {
        let (name, output) = (failed.test, failed.output);
        if failed.checked().is_none() || failed.panicked() {
            faults.push(format!("fails '{name}' in another way than by testkit's expect!\n{output}"));
        } else if NOTHING.iter().any(|nothing| output.contains(nothing)) {
            faults
                .push(format!("gives no answer in '{name}': let it answer 501 where the TODO is\n{output}"));
        }
    }
    if failed.is_empty() {
        faults.push(format!("fails without a failed test\n{said}"));
    }
    Ended::Failed(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the output of libtest for tests that fail with these messages.
    fn output(messages: &[&str]) -> String {
        let mut said = "\nrunning 3 tests\ntest fine ... ok\n\nfailures:\n".to_owned();
        for (number, message) in messages.iter().enumerate() {
            said.push_str(&format!("\n---- test_{number} stdout ----\n\n{message}\n\n"));
        }
        said + "\nfailures:\n    test_0\n\ntest result: FAILED. 1 passed; 1 failed\n"
    }

    const HELPS: &str = "tests/check.rs:9: GET / is answered\n  expected: 200\n  got:      501\n  write in: src/exercise.rs\n  hint:     do it\n";

    fn faults(code: i32, messages: &[&str]) -> Vec<String> {
        match judge(Some(code), &output(messages)) {
            Ended::Failed(faults) => faults,
            Ended::Passed => panic!("it passed"),
        }
    }

    #[test]
    fn starter_that_fails_helpfully_has_no_faults() {
        assert_eq!(faults(101, &[HELPS, HELPS]), [""; 0]);
    }

    #[test]
    fn starter_that_passes_or_crashes_is_found() {
        assert_eq!(judge(Some(0), ""), Ended::Passed);
        assert!(matches!(judge(None, ""), Ended::Failed(faults) if faults[0].starts_with("ends with None")));
        assert!(faults(101, &[])[0].starts_with("fails without a failed test"));
    }

    #[test]
    fn failure_without_help_is_found() {
        let panic =
            |message: &str| format!("thread 'test_1' (12) panicked at tests/check.rs:9:5:\n{message}");
        for (message, fault) in [
            (&*panic("not yet implemented"), "fails 'test_1' in another way than by testkit's expect!"),
            (
                &panic("GET http://127.0.0.1:1/: no complete response within 5s"),
                "fails 'test_1' in another way",
            ),
            (&HELPS.replace("501", "Err(\"no complete response within 5s\")"), "gives no answer in 'test_1'"),
            (
                &HELPS.replace("501", "Err(\"connection closed before message completed\")"),
                "gives no answer in",
            ),
            (&HELPS.replace("hint:", "help:"), "fails 'test_1' in another way"),
            (&format!("{}\n\n{HELPS}", panic("no")), "fails 'test_1' in another way"),
        ] {
            let faults = faults(101, &[HELPS, message]);
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{message}: {faults:?}");
        }
    }

    #[test]
    fn warning_about_a_starter_is_found() {
        let message = |file: &str, level: &str| {
            let source = format!("/w/{file}");
            let span = serde_json::json!({
                "file_name": file, "line_start": 7, "line_end": 7, "column_start": 1, "column_end": 2,
                "byte_start": 0, "byte_end": 1, "is_primary": true, "text": []
            });
            let message = serde_json::json!({
                "package_id": "p", "target": {"name": "t", "kind": ["lib"], "src_path": source},
                "message": {"message": "unused import", "level": level, "spans": [span], "children": []}
            });
            warning(&Repository::at("/w"), &serde_json::from_value(message).unwrap())
                .map(|fault| fault.to_string())
        };
        let file = "docs/exercises/01_a/01_b/src/exercise.rs";
        assert_eq!(
            message(file, "warning").unwrap(),
            format!("{file}:7: the starter does not compile cleanly: unused import")
        );
        assert_eq!(message(file, "note"), None);
        assert_eq!(message("gateway/src/lib.rs", "warning"), None);
    }

    #[test]
    fn exercise_is_recognized_by_its_source_path() {
        let repository = Repository::at("/w");
        let of = |file: &str| exercise(&repository, Path::new(file));
        assert_eq!(of("/w/docs/exercises/01_a/01_b/src/lib.rs").unwrap(), "docs/exercises/01_a/01_b");
        assert_eq!(of("/w/docs/check/src/lib.rs"), None);
        assert_eq!(of("/elsewhere/docs/exercises/01_a/01_b/src/lib.rs"), None);
    }
}
