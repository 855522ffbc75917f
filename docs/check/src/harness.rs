//! Runs of built tests, and what they print: the failed tests, and the messages of testkit's `expect!` in
//! their output.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{Pattern, pattern};

/// Maximum time for all tests of an exercise together.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Parts of a failure message of testkit's `expect!`.
const PARTS: [&str; 3] = ["\n  expected: ", "\n  got: ", "\n  hint: "];

/// Failed test.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed<'a> {
    /// Name of the test.
    pub test: &'a str,
    /// Output of the test.
    pub output: &'a str,
}

/// Runs a program for at most `time`. Returns its exit status, if it exited, and its output.
///
/// # Errors
/// Returns an error if the program cannot be run.
pub fn run_for(
    time: Duration,
    directory: &Path,
    program: &Path,
    arguments: &[&str],
) -> std::io::Result<(Option<ExitStatus>, String)> {
    let mut output: File = tempfile::tempfile()?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    // The developer's own settings have no effect.
    command.env("RUST_BACKTRACE", "0").env_remove("HINT");
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

/// Returns the failed tests in the output of a test program.
pub fn failed(said: &str) -> Vec<Failed<'_>> {
    static SECTION: Pattern = Pattern::new(|| pattern(r"(?m)^---- (.+) stdout ----$"));
    let names = SECTION.captures_iter(said).map(|found| found.extract::<1>().1[0]);
    // After the last section, libtest prints the list of all failures.
    let outputs = SECTION.split(said).skip(1);
    let outputs = outputs.map(|section| section.split("\nfailures:\n").next().unwrap_or(section).trim());
    names.zip(outputs).map(|(test, output)| Failed { test, output }).collect()
}

impl Failed<'_> {
    /// Returns what the failed `expect!` checked, in the words of the test, or nothing if the test failed in
    /// another way.
    pub fn checked(&self) -> Option<&str> {
        static CHECKED: Pattern = Pattern::new(|| pattern(r"(?ms)^[^\n]+\.rs:\d+: (.+?)\n  expected: "));
        let found = CHECKED.captures(self.output)?;
        PARTS.iter().all(|part| self.output.contains(part)).then_some(found.extract::<1>().1[0])
    }

    /// Returns true if the output has a panic, which is never one of `expect!`.
    pub fn panicked(&self) -> bool {
        static PANIC: Pattern = Pattern::new(|| pattern(r"(?m)^thread '.*panicked at .*:$"));
        PANIC.is_match(self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_hangs_is_killed() {
        let run =
            |program| run_for(Duration::from_millis(100), Path::new("/"), Path::new(program), &[]).unwrap();
        // cat reads an empty input and exits; yes never exits.
        let (status, said) = run("/bin/cat");
        assert!(status.unwrap().success() && said.is_empty());
        let (status, said) = run("/usr/bin/yes");
        assert!(status.is_none() && said.starts_with("y\n"));
    }

    #[test]
    fn failed_tests_are_read_from_the_output() {
        let said = "\nrunning 3 tests\ntest a ... FAILED\n\nfailures:\n\n\
                    ---- m::a stdout ----\n\ntests/check.rs:9: GET /: the status\n  expected: 200\n  got:      501\n  hint:     do\n\n\
                    ---- m::b stdout ----\n\nthread 'm::b' (7) panicked at tests/check.rs:9:5:\nno\n\n\n\
                    failures:\n    m::a\n    m::b\n\ntest result: FAILED.\n";
        let failed = failed(said);
        assert_eq!(failed.iter().map(|failed| failed.test).collect::<Vec<_>>(), ["m::a", "m::b"]);
        assert_eq!([failed[0].checked(), failed[1].checked()], [Some("GET /: the status"), None]);
        assert_eq!([failed[0].panicked(), failed[1].panicked()], [false, true]);
        let lines = Failed {
            test: "c",
            output: "a.rs:9: the file\nx\n\n  expected: 1\n  got:      2\n  hint:     do\n",
        };
        assert_eq!(lines.checked(), Some("the file\nx\n"));
    }
}
