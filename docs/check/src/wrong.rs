//! Check that the tests of every exercise catch plausible wrong solutions, the ones in `wrong/*.rs` beside
//! the exercise's sources. Each is a complete file, the solution with one mistake. Its first two lines say what
//! is wrong and what harm it does, and which message of the tests catches it, in whole or in part:
//!
//! ```text
//! //! Wrong: speaks TLS to an upstream that expects plain HTTP, so every request gets 502.
//! //! Caught: "GET / is answered by the upstream"
//! ```
//!
//! The solutions are compiled in a workspace of their own below the target directory ([`workspace`]), and run
//! as soon as they are built.

pub mod workspace;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};

use cargo_metadata::diagnostic::DiagnosticLevel;
use cargo_metadata::{Artifact, CompilerMessage};

use self::workspace::{Package, Workspace};
use crate::build::Build;
use crate::exercises::{self, DIRECTORY, Exercise};
use crate::harness::{PATIENCE, failed, run_for};
use crate::packages::{cargo, metadata};
use crate::repository::Repository;
use crate::{Fault, Pattern, pattern};

/// Minimum number of wrong solutions of an exercise.
const FEWEST: usize = 5;

/// Exercises that may have fewer wrong solutions. This list must only become shorter.
const EXEMPT: &[&str] = &[];

/// Number of test programs that run at once. On two cores there can be more than two, because they mostly
/// wait.
const WIDTH: usize = 6;

/// Wrong solution of an exercise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Path of the file, from the repository's root.
    pub file: String,
    /// Name of the file without its extension.
    pub name: String,
    /// Part of the message that catches the solution.
    pub caught: String,
}

/// Builds every wrong solution, and runs it against the tests of its exercise. Returns a fault for each one
/// that warns, or that is not caught by the message that it names.
///
/// # Panics
/// Panics if cargo cannot be run, or the workspace cannot be written.
pub fn check(repository: &Repository) -> Vec<Fault> {
    let files = repository.files();
    let (exercises, _) = exercises::find(&files, |file| repository.find(file));
    let mut faults = Vec::new();
    let mut packages = Vec::new();
    for exercise in &exercises {
        let (wrong, broken) = find(exercise, &files, |file| repository.find(file));
        faults.extend(broken);
        faults.extend(count(exercise, wrong.len(), EXEMPT));
        packages.extend(workspace::packages(repository, exercise, &files, &wrong));
    }
    let target = metadata(repository).target_directory;
    let workspace = Workspace::write(repository, target.as_std_path(), packages);
    faults.extend(build_and_run(repository, &workspace));
    faults
}

/// Returns the wrong solutions of an exercise, and a fault for each file that does not say what is wrong.
fn find(
    exercise: &Exercise,
    files: &[String],
    read: impl Fn(&str) -> Option<String>,
) -> (Vec<Wrong>, Vec<Fault>) {
    static TOP: Pattern = Pattern::new(|| {
        pattern("^//! Wrong: (?:[^\n]+\n//! )*?[^\n]*[^\n. ]\\.\n//! Caught: \"([^\n]+)\"\n")
    });
    static NAME: Pattern = Pattern::new(|| pattern("^[a-z][a-z0-9_]*$"));
    let inside = format!("{}/wrong/", exercise.directory);
    let (mut wrong, mut faults) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|file| file.starts_with(&inside)) {
        let mut fault = |what: &str| faults.push(Fault::new(file, 0, what));
        let name = file[inside.len()..].strip_suffix(".rs").unwrap_or_default();
        if !NAME.is_match(name) {
            fault("is not a wrong solution: expected wrong/NAME.rs, with a name of lower-case words and _");
            continue;
        }
        match TOP.captures(&read(file).unwrap_or_default()) {
            Some(top) => {
                let (name, caught) = (name.to_owned(), top[1].to_owned());
                wrong.push(Wrong { file: file.clone(), name, caught });
            }
            None => fault(
                "does not begin with `//! Wrong: ` and a sentence, and on the next line `//! Caught: ` and, in \
                 quotes, a part of the message that catches it",
            ),
        }
    }
    (wrong, faults)
}

/// Returns a fault if an exercise has too few wrong solutions, or is on the list of exempt ones without need.
fn count(exercise: &Exercise, wrong: usize, exempt: &[&str]) -> Option<Fault> {
    let Exercise { directory, package, .. } = exercise;
    match (wrong >= FEWEST, exempt.contains(&package.as_str())) {
        (false, false) => {
            let what =
                format!("has {wrong} wrong solutions, expected {FEWEST} or more: write wrong/NAME.rs files");
            Some(Fault::new(directory, 0, what))
        }
        (true, true) => {
            let what = format!("{package} has {wrong} wrong solutions: take it off the list EXEMPT");
            Some(Fault::new("docs/check/src/wrong.rs", 0, what))
        }
        _ => None,
    }
}

/// Builds the workspace. Runs the solutions of each package as soon as it is built.
fn build_and_run(repository: &Repository, workspace: &Workspace) -> Vec<Fault> {
    let (send, built) = mpsc::channel::<(&Package, &Wrong, PathBuf)>();
    let built = Mutex::new(built);
    let worker = || {
        let next = || built.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
        let run = |(package, wrong, program): (&Package, &Wrong, PathBuf)| {
            let directory = repository.root().join(&package.directory);
            (wrong.file.clone(), run(&directory, &program, package, wrong))
        };
        std::iter::from_fn(|| next().map(run)).collect::<BTreeMap<_, _>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WIDTH).map(|_| scope.spawn(worker)).collect();
        let mut command = cargo(repository);
        command.current_dir(&workspace.directory).env("CARGO_TARGET_DIR", &workspace.target);
        command.args(["build", "--tests", "--keep-going", "--message-format=json"]);
        let mut later = Vec::new();
        let build = Build::run(&mut command, |artifact| {
            let program = test_program(artifact);
            let package = program.as_ref().and_then(|_| workspace.package(&artifact.target.src_path));
            for (package, program) in package.into_iter().zip(program) {
                let jobs = package.wrong.iter().map(|wrong| (package, wrong, program.clone()));
                // Cargo may build a test before the program that the test runs.
                if package.has_program {
                    later.extend(jobs);
                } else {
                    // A send fails only if the workers have panicked, which the join below reports.
                    jobs.for_each(|job| drop(send.send(job)));
                }
            }
        });
        later.into_iter().for_each(|job| drop(send.send(job)));
        drop(send);
        let mut faults: Vec<Fault> =
            build.messages.iter().filter_map(|message| diagnosed(repository, workspace, message)).collect();
        let mut ended = BTreeMap::new();
        for worker in workers {
            ended.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        if !build.success && faults.is_empty() {
            faults.push(Fault::new(
                DIRECTORY,
                0,
                format!("the wrong solutions cannot be built:\n{}", build.errors()),
            ));
        }
        let fault = |(file, what): (String, Option<String>)| Some(Fault::new(&file, 0, what?));
        faults.extend(ended.into_iter().filter_map(fault));
        faults
    })
}

/// Returns the program of a test.
fn test_program(artifact: &Artifact) -> Option<PathBuf> {
    let is_test = artifact.target.kind.iter().any(|kind| kind.to_string() == "test");
    artifact.executable.clone().filter(|_| is_test).map(PathBuf::from)
}

/// Returns a fault if the compiler has a warning or an error about a wrong solution.
fn diagnosed(repository: &Repository, workspace: &Workspace, message: &CompilerMessage) -> Option<Fault> {
    let package = workspace.package(&message.target.src_path)?;
    let says = matches!(message.message.level, DiagnosticLevel::Warning | DiagnosticLevel::Error);
    // Summaries such as "1 warning emitted" have no place and add no information.
    let span = message.message.spans.iter().find(|span| span.is_primary).filter(|_| says)?;
    let root = format!("{}/", repository.root().display());
    let file = span.file_name.strip_prefix(&root).unwrap_or(&span.file_name);
    let wrong = package.wrong.iter().find(|wrong| wrong.file == file);
    let wrong = wrong.or_else(|| package.at_line(span.line_start));
    let text = message.message.rendered.as_ref().unwrap_or(&message.message.message).trim_end();
    let what = format!("the wrong solution does not compile cleanly with the exercise's tests:\n{text}");
    Some(Fault::new(wrong.map_or(package.directory.as_str(), |wrong| &wrong.file), 0, what))
}

/// Runs the exercise's tests against a wrong solution. Returns what is wrong with it, if it is not caught.
fn run(directory: &Path, program: &Path, package: &Package, wrong: &Wrong) -> Option<String> {
    let only = package.only(wrong);
    match run_for(PATIENCE, directory, program, &only.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok((Some(status), said)) => judge(status.code(), &said, &wrong.caught),
        Ok((None, said)) => {
            Some(format!("still runs after {PATIENCE:?}; its tests must fail and not hang\n{said}"))
        }
        Err(error) => Some(format!("cannot be run: {error}")),
    }
}

/// Returns the reason why the tests with this output do not catch a wrong solution with the expected message.
fn judge(code: Option<i32>, said: &str, caught: &str) -> Option<String> {
    match code {
        Some(101) => {}
        Some(0) => {
            return Some("is wrong, and passes the exercise's tests: let tests/check.rs catch it".to_owned());
        }
        code => return Some(format!("ends with {code:?}, and not with a failed test\n{said}")),
    }
    let failed = failed(said);
    let messages: Vec<&str> = failed.iter().filter_map(|failed| failed.checked()).collect();
    if messages.iter().any(|message| message.contains(caught)) {
        return None;
    }
    if messages.is_empty() {
        return Some(format!("does not fail by testkit's expect!\n{said}"));
    }
    let messages = messages.join("\n    ");
    Some(format!("is not caught by the message that it names\n  named: {caught}\n  came:\n    {messages}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exercise() -> Exercise {
        let manifest = "[package]\nname = \"ex0101\"\ndescription = \"d\"\n[package.metadata.workshop]\n\
                        title = \"t\"\nminutes = 1\nneeds = []\nhint = \"h\"\n";
        let files = ["docs/exercises/01_a/01_b/Cargo.toml".to_owned()];
        exercises::find(&files, |_| Some(manifest.to_owned())).0.remove(0)
    }

    fn found(name: &str, text: &str) -> (Vec<Wrong>, Vec<Fault>) {
        let file = format!("docs/exercises/01_a/01_b/wrong/{name}");
        find(&exercise(), &[file, "docs/exercises/01_a/01_b/src/lib.rs".to_owned()], |_| {
            Some(text.to_owned())
        })
    }

    #[test]
    fn wrong_solution_says_what_catches_it() {
        let top = "//! Wrong: forgets it, so nothing comes.\n//! Caught: \"GET \"x\" fails\"\n\nuse a;\n";
        let (wrong, faults) = found("forgets_it.rs", top);
        assert_eq!(faults, []);
        assert_eq!([&*wrong[0].name, &*wrong[0].caught], ["forgets_it", "GET \"x\" fails"]);
        for (name, text) in [
            ("forgets_it.rs", top.replace("Wrong", "wrong")),
            ("forgets_it.rs", top.replace("comes.", "comes")),
            ("forgets_it.rs", top.replace("//! Caught: \"GET \"x\" fails\"\n", "")),
            ("forgets_it.rs", top.replace("GET \"x\" fails", "")),
            ("Forgets.rs", top.to_owned()),
            ("notes.md", top.to_owned()),
        ] {
            let (wrong, faults) = found(name, &text);
            assert!(wrong.is_empty() && faults.len() == 1, "{name}, {text}: {faults:?}");
        }
    }

    #[test]
    fn too_few_wrong_solutions_are_found() {
        let what = |wrong, exempt: &[&str]| count(&exercise(), wrong, exempt).map(|fault| fault.to_string());
        assert_eq!(what(5, &[]), None);
        assert_eq!(what(4, &["ex0101"]), None);
        assert!(what(4, &[]).unwrap().starts_with("docs/exercises/01_a/01_b: has 4 wrong solutions"));
        assert!(what(5, &["ex0101"]).unwrap().contains("take it off the list"));
    }

    #[test]
    fn wrong_solution_that_is_not_caught_is_found() {
        let output = |message: &str| {
            format!("failures:\n\n---- a::b stdout ----\n\n{message}\n\nfailures:\n    a::b\n")
        };
        let helps =
            output("tests/check.rs:9: GET /: the status\n  expected: 200\n  got:      501\n  hint:     do\n");
        let judge = |code, said: &str| judge(code, said, "the status").unwrap_or_default();
        assert_eq!(judge(Some(101), &helps), "");
        assert!(judge(Some(0), "").contains("passes the exercise's tests"));
        assert!(judge(None, "").starts_with("ends with None"));
        assert!(judge(Some(101), &helps.replace("status", "body")).contains("came:\n    GET /: the body"));
        let panic = output("thread 'a::b' (1) panicked at tests/check.rs:9:5:\nthe status");
        assert!(judge(Some(101), &panic).contains("does not fail by testkit's expect!"));
    }
}
