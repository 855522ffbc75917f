//! Properties that must hold for every input of the gateway that comes from outside.
//!
//! Each module covers one parser. Its function `check` takes bytes and panics if a property does not hold. The
//! targets in `fuzz_targets/` let libFuzzer search for such bytes (`make fuzz`). `seeds/` has inputs that
//! failed once and inputs that lead the fuzzer to interesting code, in files named after their content. The
//! tests below check all seeds.

#![allow(clippy::panic, reason = "here, a panic is the report")]

pub mod authorization;
pub mod chunked_body;
pub mod config;
pub mod forwarded_for;
pub mod host;
pub mod hpack;
pub mod http2_frames;
pub mod path;
pub mod proxy_protocol;
pub mod request_head;
pub mod response_head;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    type Check = fn(&[u8]);

    const TARGETS: &[(&str, Check)] = &[
        ("authorization", super::authorization::check),
        ("chunked_body", super::chunked_body::check),
        ("config", super::config::check),
        ("forwarded_for", super::forwarded_for::check),
        ("host", super::host::check),
        ("hpack", super::hpack::check),
        ("http2_frames", super::http2_frames::check),
        ("path", super::path::check),
        ("proxy_protocol", super::proxy_protocol::check),
        ("request_head", super::request_head::check),
        ("response_head", super::response_head::check),
    ];

    /// Returns the names and contents of the files in a directory of this package.
    fn files(directory: &str) -> Vec<(String, Vec<u8>)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        let entries =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|file| (file.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&file).unwrap()))
            .collect();
        files.sort();
        files
    }

    /// Checks every file in `directory`. The message of each failed check is printed before the final panic.
    fn hold(check: Check, directory: &str) {
        let files = files(directory);
        assert!(!files.is_empty(), "{directory} has no seed");
        let breaks = |bytes: &[u8]| std::panic::catch_unwind(|| check(bytes)).is_err();
        let broken: Vec<_> = files.iter().filter(|(_, bytes)| breaks(bytes)).map(|(name, _)| name).collect();
        assert!(broken.is_empty(), "inputs in {directory} for which it does not hold: {broken:?}");
    }

    #[test]
    fn every_seed_passes_its_check() {
        for (target, check) in TARGETS {
            hold(*check, &format!("seeds/{target}"));
        }
    }

    #[test]
    fn repository_configurations_pass_the_config_check() {
        hold(super::config::check, "../config");
    }

    #[test]
    fn every_target_has_seeds_and_a_test() {
        let named = |directory: &str| -> Vec<String> {
            fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory))
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        let mut expected: Vec<&str> = TARGETS.iter().map(|(target, _)| *target).collect();
        expected.sort_unstable();
        for directory in ["fuzz_targets", "seeds"] {
            let mut found = named(directory);
            found.sort_unstable();
            assert_eq!(found, expected, "{directory}");
        }
    }
}
