//! Messages of an exercise's tests for the learner: the checked behaviour, the expected value, the actual
//! value, and the file to write in. Two hints are read from the exercise's manifest, so that they are written
//! only once: `hint` says what to look for, and is always shown. `more` says how to do it, and is shown if the
//! variable `HINT` is `more`.

use std::fmt::Debug;
use std::panic::{Location, resume_unwind};
use std::path::{Path, PathBuf};

/// Compares an actual value with the value that an exercise expects. If they differ, the test fails, with
/// both values, the file to work in and the exercise's hint. The message has no backtrace.
///
/// ```text
/// expect!(answer.status, 200, "GET / is answered by the upstream");
/// expect!(answer.text(), contains "hello", "the body is the upstream's");
/// expect!(eventually proxy_state().await, "open", "three failures open the breaker");
/// ```
#[macro_export]
macro_rules! expect {
    (eventually $actual:expr, $expected:expr, $($what:tt)+) => {{
        let until = ::std::time::Instant::now() + $crate::DEADLINE;
        loop {
            let actual = $actual;
            if actual == $expected {
                break;
            }
            if ::std::time::Instant::now() >= until {
                $crate::lesson::compare(&actual, &$expected, &format!($($what)+), env!("CARGO_MANIFEST_DIR"));
            }
            ::tokio::time::sleep($crate::POLL).await;
        }
    }};
    ($actual:expr, contains $part:expr, $($what:tt)+) => {
        $crate::lesson::contains(&$actual, &$part, &format!($($what)+), env!("CARGO_MANIFEST_DIR"))
    };
    ($actual:expr, $expected:expr, $($what:tt)+) => {
        $crate::lesson::compare(&$actual, &$expected, &format!($($what)+), env!("CARGO_MANIFEST_DIR"))
    };
}

/// Fails the test unless the two values are equal.
#[doc(hidden)]
#[track_caller]
pub fn compare<A, E>(actual: &A, expected: &E, what: &str, exercise: &str)
where
    A: PartialEq<E> + Debug + ?Sized,
    E: Debug + ?Sized,
{
    if actual != expected {
        fail(what, &format!("{expected:?}"), &format!("{actual:?}"), exercise);
    }
}

/// Fails the test unless `actual` contains `part`.
#[doc(hidden)]
#[track_caller]
pub fn contains(actual: &str, part: &str, what: &str, exercise: &str) {
    if !actual.contains(part) {
        fail(what, &format!("a text that contains {part:?}"), &format!("{actual:?}"), exercise);
    }
}

/// Ends the test with a message for the learner.
///
/// The panic starts without the panic hook, which would add a backtrace of sixty lines if the learner has set
/// `RUST_BACKTRACE`. So the message is printed here. The test harness captures it, as it captures every output.
#[track_caller]
fn fail(what: &str, expected: &str, got: &str, exercise: &str) -> ! {
    let place = Location::caller();
    let manifest = Path::new(exercise).join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap_or_default();
    let hint = value(&text, "hint").unwrap_or_else(|| format!("none in {}", manifest.display()));
    let file = relative(&Path::new(exercise).join("src/exercise.rs"));
    let mut message = format!(
        "{what}\n  expected: {expected}\n  got:      {got}\n  write in: {}\n  hint:     {hint}\n",
        file.display()
    );
    let wants_more = std::env::var_os("HINT").is_some_and(|hint| hint == "more");
    message.extend(more(&text, wants_more));
    eprintln!("\n{}:{}: {message}", place.file(), place.line());
    resume_unwind(Box::new(message))
}

/// Returns the line with the second hint, if the manifest has one: the hint itself if the learner asks for it,
/// otherwise the command that shows it.
fn more(manifest: &str, wants_more: bool) -> Option<String> {
    let more = value(manifest, "more")?;
    let package = value(manifest, "name").unwrap_or_default();
    Some(if wants_more {
        format!("  more:     {more}\n")
    } else {
        format!("  more:     HINT=more cargo test -p {package}\n")
    })
}

/// Returns the value of the first line `key = "…"` in a manifest.
fn value(manifest: &str, key: &str) -> Option<String> {
    let mut values = manifest.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    let quoted = values.next()?.trim().strip_prefix('"')?.strip_suffix('"')?;
    Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// Returns the path relative to the workspace's root, which is the learner's working directory.
fn relative(file: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().unwrap_or(root);
    file.strip_prefix(root).unwrap_or(file).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let panic = std::panic::catch_unwind(check).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    }

    #[test]
    fn failure_shows_expected_and_actual_value_and_file() {
        let exercise = concat!(env!("CARGO_MANIFEST_DIR"), "/../exercises/01_upstream/01_first_peer");
        let said = said(|| compare(&501, &200, "GET / is forwarded", exercise));
        for part in ["GET / is forwarded\n", "expected: 200\n", "got:      501\n", "src/exercise.rs\n"] {
            assert!(said.contains(part), "{part:?} not in {said}");
        }
        assert!(!said.contains("hint:     none"), "{said}");
    }

    #[test]
    fn expected_values_do_not_fail_the_test() {
        compare(&200, &200, "", "");
        contains("hello from origin A", "origin A", "", "");
        assert!(said(|| contains("hello", "bye", "", "")).contains("a text that contains \"bye\""));
    }

    #[test]
    fn value_may_contain_quotes_and_backslashes() {
        let manifest = "title = \"t\"\nhint = \"say \\\"x\\\"\"\nmore = \"b\\\\n\"\n";
        assert_eq!(value(manifest, "hint").unwrap(), "say \"x\"");
        assert_eq!(value(manifest, "more").unwrap(), "b\\n");
        assert_eq!(value(manifest, "tit"), None);
    }

    #[test]
    fn second_hint_is_shown_only_if_asked_for() {
        let manifest =
            "[package]\nname = \"ex0101\"\nhint = \"look\"\nmore = \"do it\"\n[[bin]]\nname = \"x\"\n";
        assert_eq!(more(manifest, false).unwrap(), "  more:     HINT=more cargo test -p ex0101\n");
        assert_eq!(more(manifest, true).unwrap(), "  more:     do it\n");
        assert_eq!(more(&manifest.replace("more", "less"), true), None);
    }
}
