//! Keeps README, book, diagrams and exercises true: each module checks one kind of promise that prose or a
//! manifest makes, and `tests/it` holds this repository to all of them.
//!
//! A check returns [`Fault`]s rather than panicking at the first, so that all are said at once. Where a
//! fault's place can be rewritten from its source, `BLESS=1 cargo test -p check` does so ([`hold`]).
//!
//! # What to write on a page
//!
//! | above a fenced block | then |
//! |---|---|
//! | `<!-- source: path#region -->` | it is that file, or that region of it ([`snippets`]) |
//! | `<!-- transcript: run -->` | its commands are run in turn, and answer what it shows ([`transcripts`]) |
//! | `<!-- transcript: serve NAME -->` | the last of them stays, until the page has another one with this name |
//! | `<!-- file: NAME -->` | those commands find it as a file |
//! | `<!-- rules: gateway -->` | it says which module may use which ([`modules`]) |
//!
//! Between `<!-- generated: exercises -->` (or `schedule`) and `<!-- /generated -->` stands what [`tables`]
//! makes. In a mermaid block, `%% code: path` says whose methods the diagram names ([`diagrams`]).

#![allow(clippy::panic, reason = "a check that cannot look ends the test, and says at what")]

pub mod changelog;
pub mod chapters;
pub mod diagrams;
pub mod exercises;
pub mod links;
pub mod markdown;
pub mod modules;
pub mod packages;
pub mod repository;
pub mod snippets;
pub mod starters;
pub mod tables;
pub mod transcripts;
pub mod unification;

use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::repository::Repository;

/// Something that is not as it is written, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The file, from the repository's root.
    pub file: String,
    /// Its line, from 1; 0 where the fault is the whole file's.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
    /// What would be right, where that is known.
    pub fix: Option<Fix>,
}

/// New text for a part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// The bytes to replace.
    pub range: Range<usize>,
    /// What to write there.
    pub text: String,
}

impl Fault {
    /// A fault that a person must mend.
    pub fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Fault { file: file.to_owned(), line, what: what.into(), fix: None }
    }

    /// A fault that `BLESS=1` mends.
    pub fn fixable(file: &str, line: usize, what: impl Display, fix: Fix) -> Self {
        let what = format!("{what}\n  to rewrite it: BLESS=1 cargo test -p check");
        Fault { fix: Some(fix), ..Fault::new(file, line, what) }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Fault { file, line, what, .. } = self;
        if *line == 0 { write!(f, "{file}: {what}") } else { write!(f, "{file}:{line}: {what}") }
    }
}

/// Holds this repository to a check.
///
/// # Panics
/// With every fault that is left.
pub fn hold(check: impl FnOnce(&Repository) -> Vec<Fault>) {
    let faults = settle(check);
    assert!(faults.is_empty(), "{}", list(&faults));
}

/// Checks this repository and, with `BLESS` set, rewrites what can be: the faults that are left.
pub fn settle(check: impl FnOnce(&Repository) -> Vec<Fault>) -> Vec<Fault> {
    // Fixes name bytes of a file: while one check reads and rewrites, no other may.
    static REWRITING: Mutex<()> = Mutex::new(());
    let repository = Repository::here();
    if std::env::var_os("BLESS").is_none() {
        return check(&repository);
    }
    let _turn = REWRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let faults = check(&repository);
    repository.mend(faults)
}

/// All faults, as a person reads them.
pub fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    format!("{} to mend\n\n{}\n", faults.len(), lines.join("\n\n"))
}

/// How `written` differs from what it should be, as a unified diff.
pub(crate) fn diff(written: &str, right: &str) -> String {
    let diff = similar::TextDiff::from_lines(written, right);
    let diff = diff.unified_diff().context_radius(2).missing_newline_hint(false).to_string();
    let lines: Vec<String> = diff.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

/// Does `work` for each item, so many at a time: the results, in order.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    width: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let take = || {
            let place = next.fetch_add(1, Ordering::Relaxed);
            Some((place, work(items.get(place)?)))
        };
        std::iter::from_fn(take).collect::<Vec<(usize, R)>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(worker)).collect();
        let results =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        let mut results: Vec<_> = results.flatten().collect();
        results.sort_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    })
}

/// A regular expression that is compiled once.
pub(crate) type Pattern = LazyLock<Regex>;

/// Compiles one of this crate's own expressions.
pub(crate) fn pattern(expression: &str) -> Regex {
    Regex::new(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
}
