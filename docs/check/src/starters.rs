//! Check that every starter compiles without a warning, and fails its test with a helpful message: the
//! expected value, the actual value and the hint. A panic in the starter, a hang or a closed connection is
//! not helpful.
//!
//! The starters are built together, with the whole workspace selected. So the dependencies have the same
//! features as in every other build, and Pingora is not compiled again.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cargo_metadata::diagnostic::DiagnosticLevel;
use cargo_metadata::{Artifact, CompilerMessage, Message};

use crate::exercises::DIRECTORY;
use crate::packages::cargo;
use crate::repository::Repository;
use crate::{Fault, Pattern, in_parallel, pattern};

/// Maximum time for all tests of a starter together.
const PATIENCE: Duration = Duration::from_secs(60);

/// Parts of a failure message of testkit's `expect!`.
const FAILURE: [&str; 3] = ["\n  expected: ", "\n  got: ", "\n  hint: "];

/// Actual values that mean that no response came. They do not help a learner.
const NOTHING: [&str; 6] = [
    "no complete response within",
    "connection closed",
    "connection reset",
    "connection error",
    "Connection reset",
    "Broken pipe",
];

/// Builds and runs every starter. Returns a fault for each one that warns, passes, or fails without help.
///
/// # Panics
/// Panics if cargo cannot be run, or code outside the exercises does not compile.
pub fn check(repository: &Repository) -> Vec<Fault> {
    let build = build(repository, &["test", "--test", "check", "--no-run"]);
    let mut faults: Vec<Fault> = build.messages.iter().filter_map(|m| warning(repository, m)).collect();
    let starters: Vec<_> = build.artifacts.iter().filter_map(|a| program(repository, a, "test")).collect();
    // Four run at once on two cores, because they mostly wait.
    faults.extend(
        in_parallel(4, &starters, |(directory, program)| run(repository, directory, program))
            .into_iter()
            .flatten(),
    );
    // The starter and the solution of a program share one output file. This check may be a part of
    // `cargo test --features solution`, which needs the solution there, so it is built again.
    let programs = build.artifacts.iter().filter(|artifact| program(repository, artifact, "bin").is_some());
    for artifact in programs {
        self::build(repository, &["build", "--features", "solution", "--bin", &artifact.target.name]);
    }
    faults
}

#[derive(Default)]
struct Build {
    messages: Vec<CompilerMessage>,
    artifacts: Vec<Artifact>,
}

fn build(repository: &Repository, arguments: &[&str]) -> Build {
    let mut command = cargo(repository);
    command.args(arguments).args(["--workspace", "--message-format=json"]);
    let output = command.output().unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    let mut build = Build::default();
    for message in Message::parse_stream(&output.stdout[..]) {
        match message {
            Ok(Message::CompilerMessage(message)) => build.messages.push(message),
            Ok(Message::CompilerArtifact(artifact)) => build.artifacts.push(artifact),
            _ => {}
        }
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let errors = build.messages.iter().filter(|message| message.message.level == DiagnosticLevel::Error);
    let errors: String = errors.filter_map(|message| message.message.rendered.clone()).collect();
    assert!(output.status.success(), "cargo {} --workspace:\n{errors}{said}", arguments.join(" "));
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

/// Runs a starter's tests in the directory in which cargo would run them.
fn run(repository: &Repository, directory: &str, program: &Path) -> Vec<Fault> {
    let ended = run_for(PATIENCE, &repository.root().join(directory), program);
    let faults = match ended {
        Ok((Some(status), said)) => judge(status.code(), &said),
        Ok((None, said)) => vec![format!("still runs after {PATIENCE:?}; it must fail and not hang\n{said}")],
        Err(error) => vec![format!("cannot be run: {error}")],
    };
    let file = format!("{directory}/src/exercise.rs");
    faults.into_iter().map(|what| Fault::new(&file, 0, format!("the starter {what}"))).collect()
}

/// Runs a program for at most `time`. Returns its exit status, if it exited, and its output.
fn run_for(
    time: Duration,
    directory: &Path,
    program: &Path,
) -> std::io::Result<(Option<ExitStatus>, String)> {
    let mut output: File = tempfile::tempfile()?;
    let mut command = Command::new(program);
    command.current_dir(directory).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    let mut child = command.stdout(output.try_clone()?).stderr(output.try_clone()?).spawn()?;
    let until = Instant::now() + time;
    let mut status = child.try_wait()?;
    while status.is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
        status = child.try_wait()?;
    }
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let mut said = String::new();
    output.rewind()?;
    output.read_to_string(&mut said)?;
    Ok((status, said))
}

/// Returns the faults in the output of a starter's tests, as reasons why it does not help a learner.
fn judge(code: Option<i32>, said: &str) -> Vec<String> {
    static SECTION: Pattern = Pattern::new(|| pattern(r"(?m)^---- (.+) stdout ----$"));
    static PANIC: Pattern = Pattern::new(|| pattern(r"(?m)^thread '.*panicked at .*:$"));
    match code {
        Some(101) => {}
        Some(0) => {
            return vec![
                "passes its tests. If you have solved it: well done; this check is about the starter that others get"
                    .to_owned(),
            ];
        }
        code => return vec![format!("ends with {code:?}, and not with a failed test\n{said}")],
    }
    let names: Vec<&str> = SECTION.captures_iter(said).map(|found| found.extract::<1>().1[0]).collect();
    let mut faults = Vec::new();
    for (name, section) in names.iter().zip(SECTION.split(said).skip(1)) {
        // After the last section, libtest prints the list of all failures.
        let section = section.split("\nfailures:\n").next().unwrap_or(section);
        let panics: Vec<&str> = PANIC.split(section).skip(1).collect();
        let fine = |panic: &&str| FAILURE.iter().all(|part| panic.contains(part));
        if panics.is_empty() || !panics.iter().all(fine) {
            faults
                .push(format!("fails '{name}' in another way than by testkit's expect!\n{}", section.trim()));
        } else if NOTHING.iter().any(|nothing| section.contains(nothing)) {
            faults.push(format!(
                "gives no answer in '{name}': let it answer 501 where the TODO is\n{}",
                section.trim()
            ));
        }
    }
    if names.is_empty() {
        faults.push(format!("fails without a failed test\n{said}"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the output of libtest for tests that fail with these messages.
    fn output(panics: &[&str]) -> String {
        let mut said = "\nrunning 3 tests\ntest fine ... ok\n\nfailures:\n".to_owned();
        for (number, panic) in panics.iter().enumerate() {
            said.push_str(&format!(
                "\n---- test_{number} stdout ----\n\nthread 'test_{number}' (12) panicked at tests/check.rs:9:5:\n{panic}\n\
                 note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\n"
            ));
        }
        said + "\nfailures:\n    test_0\n\ntest result: FAILED. 1 passed; 1 failed\n"
    }

    const HELPS: &str = "GET / is answered\n  expected: 200\n  got:      501\n  write in: src/exercise.rs\n  hint:     do it\n";

    fn faults(code: i32, panics: &[&str]) -> Vec<String> {
        judge(Some(code), &output(panics))
    }

    #[test]
    fn starter_that_fails_helpfully_has_no_faults() {
        assert_eq!(faults(101, &[HELPS, HELPS]), [""; 0]);
    }

    #[test]
    fn starter_that_passes_or_crashes_is_found() {
        assert!(faults(0, &[])[0].starts_with("passes its tests"));
        assert!(judge(None, "")[0].starts_with("ends with None"));
        assert!(faults(101, &[])[0].starts_with("fails without a failed test"));
    }

    #[test]
    fn failure_without_help_is_found() {
        for (panic, fault) in [
            ("not yet implemented", "fails 'test_1' in another way than by testkit's expect!"),
            ("GET http://127.0.0.1:1/: no complete response within 5s", "fails 'test_1' in another way"),
            (&HELPS.replace("501", "Err(\"no complete response within 5s\")"), "gives no answer in 'test_1'"),
            (
                &HELPS.replace("501", "Err(\"connection closed before message completed\")"),
                "gives no answer in",
            ),
            (&HELPS.replace("hint:", "help:"), "fails 'test_1' in another way"),
            (
                &format!("no\n\nthread 'tokio-1' (3) panicked at src/a.rs:1:1:\n{HELPS}"),
                "fails 'test_1' in another way",
            ),
        ] {
            let faults = faults(101, &[HELPS, panic]);
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{panic}: {faults:?}");
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
    fn program_that_hangs_is_killed() {
        let (status, said) =
            run_for(Duration::from_millis(100), Path::new("/"), Path::new("/bin/cat")).unwrap();
        // cat reads an empty input and exits; yes never exits.
        assert!(status.unwrap().success() && said.is_empty());
        let (status, said) =
            run_for(Duration::from_millis(100), Path::new("/"), Path::new("/usr/bin/yes")).unwrap();
        assert!(status.is_none() && said.starts_with("y\n"));
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
