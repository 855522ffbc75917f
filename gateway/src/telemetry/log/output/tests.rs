//! Tests of the log output: a log that cannot be written, and a log file that is opened again.

use std::fs::read_to_string;

use parking_lot::Mutex;

use super::*;

/// Messages to the operator from all tests of this module. Each test looks for messages with the name of its file.
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn told(about: &Path) -> Vec<String> {
    let about = about.display().to_string();
    TOLD.lock().iter().filter(|what| what.contains(&about)).cloned().collect()
}

fn output(path: &Path) -> (Output, Shared) {
    let shared = Shared::default();
    let mut output = Output::file(path, shared.clone()).unwrap();
    output.tell = |what| TOLD.lock().push(what.to_owned());
    output.quiet = Duration::ZERO;
    (output, shared)
}

fn log(output: &mut Output, lines: &str) {
    output.prepare();
    output.write(lines.as_bytes());
}

fn lost(shared: &Shared) -> usize {
    shared.unwritten.load(Ordering::Relaxed)
}

#[test]
fn lines_lost_on_full_disk_are_counted_and_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.log");
    let (mut output, shared) = output(&path);
    let Target::File { file, .. } = &mut output.target else { panic!() };
    *file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    log(&mut output, "one\ntwo\n");
    log(&mut output, "three\n");
    assert_eq!(lost(&shared), 3);
    let begun = told(&path);
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert!(begun[0].contains("No space left on device"), "{begun:?}");
    // The operator frees space: in this test, a writable file replaces the output.
    let Target::File { file, .. } = &mut output.target else { panic!() };
    *file = open(&path).unwrap();
    log(&mut output, "four\n");
    log(&mut output, "five\n");
    assert_eq!(read_to_string(&path).unwrap(), "four\nfive\n");
    assert_eq!(lost(&shared), 3);
    let over = told(&path);
    assert_eq!(over.len(), 2, "{over:?}");
    assert!(over[1].contains("again; 3 lines were lost in 0 s"), "{over:?}");
}

#[test]
fn an_outage_is_over_only_after_a_while_without_failures() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("almost-full.log");
    let (mut output, shared) = output(&path);
    output.quiet = Duration::from_secs(3600);
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for _ in 0..10 {
        let Target::File { file, .. } = &mut output.target else { panic!() };
        *file = full();
        log(&mut output, "a long one\n");
        let Target::File { file, .. } = &mut output.target else { panic!() };
        *file = open(&path).unwrap();
        log(&mut output, "short\n");
    }
    assert_eq!((lost(&shared), told(&path).len()), (10, 1));
    assert_eq!(read_to_string(&path).unwrap(), "short\n".repeat(10));
}

#[test]
fn line_after_a_torn_one_begins_on_a_new_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("torn.log");
    let (mut output, shared) = output(&path);
    // A write that ended early has left half a line.
    log(&mut output, "half a li");
    log(&mut output, "whole\n");
    log(&mut output, "next\n");
    assert_eq!(read_to_string(&path).unwrap(), "half a li\nwhole\nnext\n");
    assert_eq!(lost(&shared), 0);
}

#[test]
fn renamed_log_file_is_replaced_when_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let (path, renamed) = (directory.path().join("gateway.log"), directory.path().join("gateway.log.1"));
    let (mut output, shared) = output(&path);
    log(&mut output, "first\n");
    std::fs::rename(&path, &renamed).unwrap();
    log(&mut output, "second\n");
    shared.reopen.store(true, Ordering::Release);
    log(&mut output, "third\n");
    log(&mut output, "fourth\n");
    assert_eq!(read_to_string(&renamed).unwrap(), "first\nsecond\n");
    assert_eq!(read_to_string(&path).unwrap(), "third\nfourth\n");
    assert!(!shared.reopen.load(Ordering::Acquire));
    assert_eq!(told(&path), Vec::<String>::new());
}

#[test]
fn a_file_that_cannot_be_opened_again_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (path, renamed) = (directory.path().join("blocked.log"), directory.path().join("blocked.log.1"));
    let (mut output, shared) = output(&path);
    std::fs::rename(&path, &renamed).unwrap();
    std::fs::create_dir(&path).unwrap();
    shared.reopen.store(true, Ordering::Release);
    log(&mut output, "line\n");
    assert_eq!(read_to_string(&renamed).unwrap(), "line\n");
    assert_eq!(lost(&shared), 0);
    let told = told(&path);
    assert!(told.len() == 1 && told[0].contains("Is a directory"), "{told:?}");
}

#[test]
fn file_that_was_renamed_or_removed_is_opened_again_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let (path, renamed) = (directory.path().join("moved.log"), directory.path().join("moved.log.1"));
    let (mut output, _) = output(&path);
    let look_is_due = |output: &mut Output| output.looked_at = Instant::now().checked_sub(LOOK).unwrap();
    log(&mut output, "first\n");
    std::fs::rename(&path, &renamed).unwrap();
    look_is_due(&mut output);
    log(&mut output, "second\n");
    assert_eq!(
        (read_to_string(&renamed).unwrap().as_str(), read_to_string(&path).unwrap().as_str()),
        ("first\n", "second\n")
    );
    std::fs::remove_file(&path).unwrap();
    look_is_due(&mut output);
    log(&mut output, "third\n");
    assert_eq!(read_to_string(&path).unwrap(), "third\n");
    // As logrotate's copytruncate does: the file stays, and is cut.
    OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    look_is_due(&mut output);
    log(&mut output, "fourth\n");
    assert_eq!(read_to_string(&path).unwrap(), "fourth\n");
    assert_eq!(told(&path), Vec::<String>::new());
}

#[test]
fn missing_directory_is_reported_once_and_the_old_file_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let (inside, moved) = (directory.path().join("in"), directory.path().join("away"));
    std::fs::create_dir(&inside).unwrap();
    let path = inside.join("homeless.log");
    let (mut output, shared) = output(&path);
    std::fs::rename(&inside, &moved).unwrap();
    for line in ["one\n", "two\n"] {
        output.looked_at = Instant::now().checked_sub(LOOK).unwrap();
        log(&mut output, line);
    }
    assert_eq!(
        (read_to_string(moved.join("homeless.log")).unwrap().as_str(), lost(&shared)),
        ("one\ntwo\n", 0)
    );
    assert_eq!(told(&path).len(), 1);
    assert!(Output::file(&path, Shared::default()).is_err());
}
