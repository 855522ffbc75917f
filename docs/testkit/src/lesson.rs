//! Messages of an exercise's tests for the learner: the checked behaviour, the expected value, the actual
//! value, and the file to write in. The hint is read from the exercise's manifest, so that it is written only
//! once.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// Compares an actual value with the value that an exercise expects. If they differ, the test fails, with
/// both values, the file to work in and the exercise's hint.
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

#[track_caller]
fn fail(what: &str, expected: &str, got: &str, exercise: &str) -> ! {
    let manifest = Path::new(exercise).join("Cargo.toml");
    let hint = std::fs::read_to_string(&manifest).ok().and_then(|manifest| hint(&manifest));
    let hint = hint.unwrap_or_else(|| format!("none in {}", manifest.display()));
    let file = relative(&Path::new(exercise).join("src/exercise.rs"));
    panic!(
        "{what}\n  expected: {expected}\n  got:      {got}\n  write in: {}\n  hint:     {hint}\n",
        file.display()
    );
}

/// Returns the value of `hint = "…"` in a manifest.
fn hint(manifest: &str) -> Option<String> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("hint = "))?;
    let quoted = line.trim().strip_prefix('"')?.strip_suffix('"')?;
    Some(quoted.replace("\\\"", "\""))
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
    fn hint_may_contain_quotes() {
        assert_eq!(hint("title = \"t\"\nhint = \"say \\\"x\\\"\"\n").unwrap(), "say \"x\"");
        assert_eq!(hint("title = \"t\"\n"), None);
    }
}
