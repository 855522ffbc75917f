//! Account and certificates on disk. Each ACME server has a directory that only the gateway's user may enter. The
//! directory contains `account.json`, and one file for each certificate. Such a file contains both the key and the
//! chain, so that they always come from the same order. A file is replaced as a whole: a reader finds the old file or
//! the new file, even after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Certificate;
use crate::util::files;
use crate::util::files::Replaced;

/// Maximum number of bytes of a domain in a file's name. Linux limits a name to 255 bytes. The remaining bytes are
/// for the hash, `.pem`, and the prefix and suffix of a draft.
const MAX_NAME: usize = 200;

/// Error while a file of the cache is read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried} {}: {source}", path.display())]
pub struct CacheError {
    tried: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Cached files of one ACME server.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// Account with an ACME server.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct AccountFile {
    /// Contact address that the server knows.
    pub(super) email: String,
    /// URL and key of the account, in the format of instant-acme.
    pub(super) credentials: serde_json::Value,
}

impl Cache {
    /// Creates a cache in `directory`, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Cache { directory: directory.into() }
    }

    /// Returns the path of the file with the certificate for `domain`. The file contains the key first, then the
    /// chain.
    pub fn certificate_file(&self, domain: &str) -> PathBuf {
        let name = match domain.get(..MAX_NAME) {
            Some(start) if domain.len() > MAX_NAME => {
                let hash = openssl::sha::sha256(domain.as_bytes());
                format!("{start}-{}", hex::encode(&hash[..4]))
            }
            _ => domain.to_owned(),
        };
        self.directory.join(format!("{name}.pem"))
    }

    /// Returns the certificate for `domain`; `None` if there is none that can be served.
    pub fn certificate(&self, domain: &str) -> Option<Certificate> {
        let path = self.certificate_file(domain);
        let pem = files::read_private(&path).unwrap_or_else(|error| {
            warn!("ordering a new certificate: cannot read {}: {error}", path.display());
            None
        });
        match Certificate::read(pem?.as_bytes()) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                warn!("ordering a new certificate: cannot use {}: {error}", path.display());
                None
            }
        }
    }

    /// Writes `pem`, a key and its chain, to the file of the certificate for `domain`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written; the previous file is then unchanged.
    pub fn keep_certificate(&self, domain: &str, pem: &str) -> Result<(), CacheError> {
        self.replace(&self.certificate_file(domain), pem)
    }

    /// Locks the directory, so that no other process orders certificates into it. The lock lasts until the returned
    /// claim is dropped or the process ends. Returns `None` if another process has the lock, such as an old gateway
    /// that still drains.
    ///
    /// # Errors
    /// Returns an error if the directory or the lock file cannot be made or locked.
    pub(super) fn claim(&self) -> Result<Option<Claim>, CacheError> {
        let path = self.directory.join("lock");
        let failed = |source| CacheError { tried: "lock", path: path.clone(), source };
        files::private_directory(&self.directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        match Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Claim { _lock: lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(failed(error.into())),
        }
    }

    /// Writes a file as large as a certificate and removes it, to prove before an order that its result can be
    /// stored. Every order counts against the server's limits.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn rehearse(&self) -> Result<(), CacheError> {
        let path = self.directory.join("rehearsal");
        let draft = files::draft(&path);
        let text = "-".repeat(16 * 1024);
        files::private_directory(&self.directory)
            .and_then(|()| files::write_draft(&draft, text.as_bytes(), 0o600, None))
            .and_then(|()| fs::remove_file(&draft))
            .map_err(|source| CacheError { tried: "write to", path: self.directory.clone(), source })
    }

    /// Returns the account; `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or does not hold an account.
    pub(super) fn account(&self) -> Result<Option<AccountFile>, CacheError> {
        let path = self.account_file();
        let text = match files::read_private(&path) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(source) => return Err(CacheError { tried: "read", path, source }),
        };
        let parsed = serde_json::from_str(&text).map_err(io::Error::from);
        parsed.map(Some).map_err(|source| CacheError { tried: "parse the account in", path, source })
    }

    /// Writes the account to its file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn keep_account(&self, account: &AccountFile) -> Result<(), CacheError> {
        let path = self.account_file();
        match serde_json::to_string(account) {
            Ok(text) => self.replace(&path, &text),
            Err(error) => Err(CacheError { tried: "write the account to", path, source: error.into() }),
        }
    }

    /// Renames the account's file, because the server does not know the account any more. The key is kept under the
    /// new name.
    ///
    /// # Errors
    /// Returns an error if the file cannot be renamed.
    pub(super) fn put_account_aside(&self) -> Result<(), CacheError> {
        let path = self.account_file();
        let aside = self.directory.join("account.json.unknown");
        fs::rename(&path, aside).map_err(|source| CacheError { tried: "rename", path, source })
    }

    fn account_file(&self) -> PathBuf {
        self.directory.join("account.json")
    }

    fn replace(&self, path: &Path, text: &str) -> Result<(), CacheError> {
        let draft = files::draft(path);
        let replaced = files::private_directory(&self.directory).and_then(|()| {
            files::write_draft(&draft, text.as_bytes(), 0o600, None)?;
            if files::replace(path, &draft)? == Replaced::Overwritten {
                return Ok(());
            }
            files::sync_directory(path)
        });
        replaced.map_err(|source| CacheError { tried: "write", path: path.to_owned(), source })
    }
}

/// Lock on a cache directory. Only the process with the lock orders certificates into the directory.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: Flock<File>,
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::super::certificate::tests::pem;
    use super::*;

    fn cache() -> (TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("acme/server"));
        (directory, cache)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn kept_files_are_found_again_and_are_owner_only() {
        let (root, cache) = cache();
        assert!(cache.certificate("a.example").is_none() && cache.account().unwrap().is_none());
        cache.keep_certificate("a.example", &pem("a.example")).unwrap();
        let account = AccountFile { email: "ops@a.example".to_owned(), credentials: "k".into() };
        cache.keep_account(&account).unwrap();
        assert!(cache.certificate("a.example").unwrap().names.contains("a.example"));
        assert_eq!(cache.account().unwrap().unwrap().email, "ops@a.example");
        for (path, expected) in [("acme", 0o700), ("acme/server", 0o700)] {
            assert_eq!(mode(&root.path().join(path)), expected, "{path}");
        }
        let files: Vec<PathBuf> =
            fs::read_dir(&cache.directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 2, "no draft is left: {files:?}");
        assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    }

    #[test]
    fn files_open_to_others_get_owner_only_permissions() {
        let (_root, cache) = cache();
        cache.keep_certificate("a.example", &pem("a.example")).unwrap();
        let file = cache.certificate_file("a.example");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&cache.directory, Permissions::from_mode(0o755)).unwrap();
        assert!(cache.certificate("a.example").is_some());
        assert_eq!(mode(&file), 0o600);
        cache.rehearse().unwrap();
        assert_eq!(mode(&cache.directory), 0o700);
    }

    /// A process that is killed during a write leaves a draft.
    #[test]
    fn leftover_draft_does_not_block_the_next_write() {
        let (_root, cache) = cache();
        cache.keep_certificate("a.example", &pem("a.example")).unwrap();
        let left = files::draft(&cache.certificate_file("a.example"));
        fs::write(&left, "-----BEGIN PRIV").unwrap();
        let before = cache.certificate("a.example").unwrap();
        cache.keep_certificate("a.example", &pem("a.example")).unwrap();
        assert!(!left.exists());
        assert_eq!(cache.certificate("a.example").unwrap().names, before.names);
    }

    #[test]
    fn file_without_certificate_counts_as_missing() {
        let (_root, cache) = cache();
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n"] {
            cache.keep_certificate("a.example", text).unwrap();
            assert!(cache.certificate("a.example").is_none(), "{text:?}");
        }
        fs::write(cache.certificate_file("a.example"), [0xff; 100]).unwrap();
        assert!(cache.certificate("a.example").is_none());
    }

    #[test]
    fn unwritable_directory_is_reported_before_an_order() {
        let (root, cache) = cache();
        fs::write(root.path().join("acme"), "a file, in the way").unwrap();
        let said = cache.rehearse().unwrap_err().to_string();
        assert!(said.starts_with("cannot write to ") && said.contains("acme/server"), "{said}");
    }

    #[test]
    fn claim_is_exclusive_for_a_directory() {
        let (_root, cache) = cache();
        let claim = cache.claim().unwrap();
        assert!(claim.is_some() && cache.claim().unwrap().is_none());
        drop(claim);
        assert!(cache.claim().unwrap().is_some());
        assert_eq!(mode(&cache.directory.join("lock")), 0o600);
    }

    #[test]
    fn long_names_get_distinct_files() {
        let (_root, cache) = cache();
        let names =
            ["a", "b"].map(|last| format!("{}.{last}", [&*"x".repeat(63); 3].join(".")) + &".y".repeat(20));
        let files = names.clone().map(|name| cache.certificate_file(&name));
        assert_ne!(files[0], files[1]);
        cache.keep_certificate(&names[0], &pem("a.example")).unwrap();
    }
}
