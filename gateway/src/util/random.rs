//! Secrets that cannot be guessed, because they come only from the operating system's random generator. Other sources
//! can be predicted by a client that has seen enough values: an id that begins with a clock (UUIDv7), or a fast
//! generator that is not made for secrets.

/// Length of a secret, in bytes. The length equals that of a SHA-256 hash, so that a key of HMAC-SHA-256 is not
/// weaker than the hash (RFC 2104 3).
pub const SECRET_BYTES: usize = 32;

/// Error of the operating system, which gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("cannot get random bytes from the operating system: {0}")]
pub struct NoRandomBytes(#[from] getrandom::Error);

/// Makes a secret from the operating system's random bytes.
///
/// # Errors
/// Returns an error if the system has no random bytes. This happens on a machine that has just started, or in
/// a sandbox that forbids the system call.
pub fn secret() -> Result<[u8; SECRET_BYTES], NoRandomBytes> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_bit_of_a_secret_is_random() {
        // In a clock and a version number, most bits are the same each time. The chance that any of 256
        // random bits is the same 96 times is one in 2^87.
        let (mut ones, mut zeros) = ([0; SECRET_BYTES], [0; SECRET_BYTES]);
        for _ in 0..96 {
            for (at, byte) in secret().unwrap().iter().enumerate() {
                ones[at] |= byte;
                zeros[at] |= !byte;
            }
        }
        assert_eq!((ones, zeros), ([0xFF; SECRET_BYTES], [0xFF; SECRET_BYTES]));
    }

    /// Files that use a predictable generator, each with the reason. None of their values is a secret.
    const NOT_SECRET: [(&str, &str); 7] = [
        ("proxy/admission.rs", "which requests an injected fault hits"),
        ("policy/request_id.rs", "an id for logs"),
        ("telemetry/log/access.rs", "which requests a sampled log shows"),
        ("tls/acme/manager.rs", "pause before another order"),
        ("upstream/health/mod.rs", "pause between probes"),
        ("util/backoff.rs", "pause before what failed is tried again"),
        ("websocket/drain_timer.rs", "when a WebSocket is told to go"),
    ];

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn predictable_generators_are_used_only_where_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        let foretold = |file: &PathBuf| {
            let text = fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            ["fastrand", "Uuid::", "uuid::"].iter().any(|source| code.contains(source))
        };
        let is_test = |file: &PathBuf| file.ends_with("route/readers.rs") || file.ends_with("tests.rs");
        let found: BTreeSet<String> = files
            .iter()
            .filter(|file| !is_test(file) && foretold(file))
            .map(|file| file.strip_prefix(&root).unwrap().display().to_string())
            .collect();
        let known: BTreeSet<String> = NOT_SECRET.iter().map(|(file, _)| (*file).to_owned()).collect();
        assert_eq!(found, known, "a secret comes from random::secret(); what is none goes into NOT_SECRET");
    }
}
