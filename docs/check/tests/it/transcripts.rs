//! Tests that a page's transcripts match the real output, and that a difference is reported.

use std::path::Path;
use std::process::Command;

use check::{Fault, hold, transcripts};

const PROGRAM: &str = env!("CARGO_BIN_EXE_check");

#[test]
fn console_blocks_match_the_real_output() {
    hold(|repository| transcripts::check(repository, Path::new(PROGRAM), &[]));
}

/// Plays a page and returns its faults. Its commands only use the shell and no ports, so no separate network
/// is needed.
fn play(page: &str) -> Vec<Fault> {
    played_by(Command::new(PROGRAM).arg("play"), page)
}

/// Plays a page with `command`, which gets the page's file as an argument.
fn played_by(command: &mut Command, page: &str) -> Vec<Fault> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page.md");
    std::fs::write(&file, page).unwrap();
    let output = command.arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn page_that_matches_the_output_has_no_faults() {
    let page = "<!-- file: a.txt -->\n```\nhello\n```\n\
                <!-- transcript: serve one -->\n```console\n$ sh -c 'echo first; exec sleep 100'\nfirst\n```\n\
                <!-- transcript: serve one -->\n```console\n$ echo a word before\na word before\n$ sleep 100\n```\n\
                <!-- transcript: run -->\n```console\n$ cat a.txt | grep \\\n    hello\nhello\n$ ls README.md >&2\nREADME.md\n```\n";
    assert_eq!(play(page), []);
}

/// Ctrl-C must end the programs on pages, even if a shell started the tests in the background, or `nohup`
/// did.
#[test]
fn parent_that_ignores_signals_has_no_effect() {
    let page = "<!-- transcript: serve one -->\n```console\n$ sleep 100\n```\n\
                <!-- transcript: run -->\n```console\n\
                $ grep SigIgn /proc/self/status | tail -c 8\n0000000\n```\n";
    let ignoring = "trap '' HUP INT QUIT TERM USR1 USR2 ALRM CHLD; exec \"$0\" play \"$1\"";
    assert_eq!(played_by(Command::new("sh").args(["-c", ignoring, PROGRAM]), page), []);
}

#[test]
fn wrong_output_is_found_and_can_be_rewritten() {
    let page = "<!-- transcript: run -->\n```console\n$ echo one\none\n$ echo two\nzwei\n```\n\
                <!-- transcript: serve x -->\n```console\n$ sh -c 'echo three; exec sleep 100'\ndrei\n```\n";
    let faults = play(page);
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [5, 10], "{faults:?}");
    for (fault, part) in [(0, "-zwei\n"), (0, "+two\n"), (1, "-drei\n"), (1, "+three\n")] {
        assert!(faults[fault].what.contains(part), "{part}: {faults:?}");
    }
    let mut mended = page.to_owned();
    for fix in faults.into_iter().rev().map(|fault| fault.fix.unwrap()) {
        mended.replace_range(fix.range, &fix.text);
    }
    assert_eq!(play(&mended), []);
}

#[test]
fn page_cannot_write_into_the_repository() {
    for name in ["LICENSE", "docs/new.txt"] {
        let faults = play(&format!("<!-- file: {name} -->\n```\n```\n"));
        assert!(faults.len() == 1 && faults[0].what.starts_with("cannot write"), "{faults:?}");
    }
}

#[test]
fn program_that_does_not_stay_is_found() {
    let page = "<!-- transcript: serve x -->\n```console\n$ echo port is taken\n```\n\
                <!-- transcript: run -->\n```console\n$ echo ok\nok\n```\n";
    let faults = play(page);
    assert!(
        faults.len() == 1 && faults[0].what.contains("had ended by itself:\nport is taken"),
        "{faults:?}"
    );
}
