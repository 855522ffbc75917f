//! Checks of configurations, which are parsed and validated as a whole, and rewritten by every change.

use std::sync::Arc;

use gateway::config::{ConfigError, Parsed, Source};
use gateway::live::{Resolution, Store};
use gateway::telemetry::Metrics;

/// Another configuration, which the checks change into the one under test.
const ANOTHER: &str = "# Ours.\n[[virtual_hosts]]\ndomain = \"another.example\" # the other\n\
    enabled_backends_tag = \"another\"\n[[backends]]\nid = \"another\"\naddress = \"127.0.0.1:1\"\ntags = [\"another\"]\n";

/// Checks that an invalid text is refused with one line for each fault, at a position that exists. A valid text
/// must be able to run. It must also be possible to write it as a change of another configuration, and a change
/// without effect must leave the text unchanged.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let source = Source::built_in("file", String::new());
    match source.parse(text) {
        Ok(parsed) => {
            can_be_written(&source, &parsed, text);
            can_run(source, parsed, text);
        }
        Err(error) => is_clear(&error, text),
    }
}

fn is_clear(error: &ConfigError, text: &str) {
    assert!(!error.faults.is_empty(), "it is refused for no reason");
    for fault in &error.faults {
        let said = fault.to_string();
        assert_eq!(said.lines().count(), 1, "a fault, a line: {said:?}");
        let Some(position) = fault.position else { continue };
        // A text that ends with a newline has an empty last line, where a position may be.
        let line = text.split('\n').nth(position.line.wrapping_sub(1));
        let columns = line.map_or(0, |line| line.chars().count() + 1);
        assert!((1..=columns).contains(&position.column), "there is no such place: {said:?}");
    }
}

fn can_be_written(source: &Source, parsed: &Parsed, text: &str) {
    let json = parsed.config.to_json();
    // In a change, *** stands for the secret that is already there.
    if text.contains("***") || json.to_string().contains("***") {
        return;
    }
    match source.change(parsed, &json) {
        Ok(same) => assert_eq!(same.text, text, "a change that changes nothing changes the text"),
        Err(error) => panic!("a change that changes nothing is refused: {error}"),
    }
    let Ok(another) = source.parse(ANOTHER) else { panic!("the other configuration is wrong") };
    match source.change(&another, &json) {
        Ok(changed) => {
            assert_eq!(
                changed.config.to_json(),
                json,
                "it means something else, written anew:\n{}",
                changed.text
            );
        }
        Err(error) => panic!("it cannot be written anew: {error}"),
    }
}

/// Checks that a valid configuration can run. Skips texts that depend on files or environment variables, and
/// texts with tests of their own, because these may fail.
fn can_run(source: Source, parsed: Parsed, text: &str) {
    if ["file", "_env", "tests", "acme", "lets_encrypt", "\\"].iter().any(|word| text.contains(word)) {
        return;
    }
    let Ok(metrics) = Metrics::new() else { panic!("there are no metrics") };
    if let Err(error) = Store::new(source, parsed, Resolution::Unresolved, Arc::new(metrics)) {
        panic!("it is valid and cannot run: {error}");
    }
}
