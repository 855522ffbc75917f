//! Account and certificates on disk. A directory for each server, which nobody else may enter; in it
//! `account.json`, and for each certificate one file with its key and its chain, so that they cannot be of
//! different orders. A file is replaced whole: whoever reads it finds the old one or the new one, also after a
//! power cut.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Certificate;
use super::private_file::{draft, make_directory, read, write};
use crate::util::files;
use crate::util::files::Replaced;

/// Linux gives a name in a directory so many bytes; some are for `.pem` and for the draft's signs.
const MAX_NAME: usize = 200;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried} {}: {source}", path.display())]
pub struct CacheError {
    tried: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is known of one ACME server.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// The account with a server.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct AccountFile {
    /// The contact that the server was told.
    pub(super) email: String,
    /// The account's URL and its key, as instant-acme writes them.
    pub(super) credentials: serde_json::Value,
}

impl Cache {
    /// What is in `directory`, which need not be there yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Cache { directory: directory.into() }
    }

    /// The file with the key and the chain of the certificate `domain`, the key first.
    pub fn certificate_file(&self, domain: &str) -> PathBuf {
        let name = match domain.get(..MAX_NAME) {
            Some(start) if domain.len() > MAX_NAME => {
                let hash = openssl::sha::sha256(domain.as_bytes());
                format!("{start}-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
            }
            _ => domain.to_owned(),
        };
        self.directory.join(format!("{name}.pem"))
    }

    /// The certificate `domain`, if there is one that can be served.
    pub fn certificate(&self, domain: &str) -> Option<Certificate> {
        let path = self.certificate_file(domain);
        let pem = read(&path).unwrap_or_else(|error| {
            warn!("a certificate is ordered anew: cannot read {}: {error}", path.display());
            None
        });
        match Certificate::read(pem?.as_bytes()) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                warn!("a certificate is ordered anew: {} is no good: {error}", path.display());
                None
            }
        }
    }

    /// Keeps a key and its chain as the certificate `domain`.
    ///
    /// # Errors
    /// What the system says; then what was there before still is.
    pub fn keep_certificate(&self, domain: &str, pem: &str) -> Result<(), CacheError> {
        self.replace(&self.certificate_file(domain), pem)
    }

    /// Takes the place of the one who orders into this directory, until what is returned is dropped or the process
    /// ends. `None`: somebody else has it, as when an old gateway still drains beside the new one.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn claim(&self) -> Result<Option<Claim>, CacheError> {
        let path = self.directory.join("lock");
        let failed = |source| CacheError { tried: "lock", path: path.clone(), source };
        make_directory(&self.directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        match Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Claim { _lock: lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(failed(error.into())),
        }
    }

    /// Writes as much as a certificate takes, and takes it away again. An order is only made where what comes of
    /// it can be kept: it counts against the server's limits either way.
    ///
    /// # Errors
    /// What the system says.
    pub fn rehearse(&self) -> Result<(), CacheError> {
        let path = self.directory.join("rehearsal");
        let draft = draft(&path);
        let text = "-".repeat(16 * 1024);
        make_directory(&self.directory)
            .and_then(|()| write(&draft, &text))
            .and_then(|()| fs::remove_file(&draft))
            .map_err(|source| CacheError { tried: "write to", path: self.directory.clone(), source })
    }

    /// The account, if there is one.
    ///
    /// # Errors
    /// Where its file cannot be read, or is no account.
    pub(super) fn account(&self) -> Result<Option<AccountFile>, CacheError> {
        let path = self.account_file();
        let text = match read(&path) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(source) => return Err(CacheError { tried: "read", path, source }),
        };
        let parsed = serde_json::from_str(&text).map_err(io::Error::from);
        parsed.map(Some).map_err(|source| CacheError { tried: "understand the account in", path, source })
    }

    /// Keeps the account.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn keep_account(&self, account: &AccountFile) -> Result<(), CacheError> {
        let path = self.account_file();
        match serde_json::to_string(account) {
            Ok(text) => self.replace(&path, &text),
            Err(error) => Err(CacheError { tried: "write the account to", path, source: error.into() }),
        }
    }

    /// Puts an account aside that the server does not know any more. Its key stays, under another name.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn put_account_aside(&self) -> Result<(), CacheError> {
        let path = self.account_file();
        let aside = self.directory.join("account.json.unknown");
        fs::rename(&path, aside).map_err(|source| CacheError { tried: "put aside", path, source })
    }

    fn account_file(&self) -> PathBuf {
        self.directory.join("account.json")
    }

    fn replace(&self, path: &Path, text: &str) -> Result<(), CacheError> {
        let draft = draft(path);
        let replaced = make_directory(&self.directory).and_then(|()| {
            write(&draft, text)?;
            if files::replace(path, &draft, text.as_bytes())? == Replaced::Overwritten {
                return Ok(());
            }
            // The new name reaches the disk with its directory.
            File::open(&self.directory)?.sync_all()
        });
        replaced.map_err(|source| CacheError { tried: "write", path: path.to_owned(), source })
    }
}

/// Whoever has this is the only one who orders into a directory.
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
    fn what_is_kept_is_found_again_and_is_nobody_elses() {
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
    fn what_others_could_read_is_closed() {
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

    /// As a process leaves it that was killed while it wrote.
    #[test]
    fn a_draft_that_was_left_is_in_nobodys_way() {
        let (_root, cache) = cache();
        cache.keep_certificate("a.example", &pem("a.example")).unwrap();
        let left = draft(&cache.certificate_file("a.example"));
        fs::write(&left, "-----BEGIN PRIV").unwrap();
        let before = cache.certificate("a.example").unwrap();
        cache.keep_certificate("a.example", &pem("a.example")).unwrap();
        assert!(!left.exists());
        assert_eq!(cache.certificate("a.example").unwrap().names, before.names);
    }

    #[test]
    fn a_file_that_is_no_certificate_counts_as_none() {
        let (_root, cache) = cache();
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n"] {
            cache.keep_certificate("a.example", text).unwrap();
            assert!(cache.certificate("a.example").is_none(), "{text:?}");
        }
        fs::write(cache.certificate_file("a.example"), [0xff; 100]).unwrap();
        assert!(cache.certificate("a.example").is_none());
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_told_before_an_order() {
        let (root, cache) = cache();
        fs::write(root.path().join("acme"), "a file, in the way").unwrap();
        let said = cache.rehearse().unwrap_err().to_string();
        assert!(said.starts_with("cannot write to ") && said.contains("acme/server"), "{said}");
    }

    #[test]
    fn one_at_a_time_orders_into_a_directory() {
        let (_root, cache) = cache();
        let claim = cache.claim().unwrap();
        assert!(claim.is_some() && cache.claim().unwrap().is_none());
        drop(claim);
        assert!(cache.claim().unwrap().is_some());
        assert_eq!(mode(&cache.directory.join("lock")), 0o600);
    }

    #[test]
    fn the_longest_name_has_a_file_of_its_own() {
        let (_root, cache) = cache();
        let names =
            ["a", "b"].map(|last| format!("{}.{last}", [&*"x".repeat(63); 3].join(".")) + &".y".repeat(20));
        let files = names.clone().map(|name| cache.certificate_file(&name));
        assert_ne!(files[0], files[1]);
        cache.keep_certificate(&names[0], &pem("a.example")).unwrap();
    }
}
