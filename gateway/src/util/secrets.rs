//! Secrets that the configuration names but does not contain. They are in environment variables, and in separate
//! files.
//!
//! A running gateway needs the secrets. `check` and `explain` also work without them (in a pre-commit hook or CI),
//! and list the missing secrets for the operator.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::util::files;

/// Reader of secrets that also keeps a list of missing secrets.
#[derive(Debug)]
pub struct Secrets {
    are_required: bool,
    missing: RefCell<BTreeSet<String>>,
}

impl Secrets {
    /// Creates a reader for a running gateway: a missing secret is an error.
    pub fn required() -> Self {
        Secrets { are_required: true, missing: RefCell::default() }
    }

    /// Creates a reader for a configuration that is only checked: a missing secret is added to the list.
    pub fn optional() -> Self {
        Secrets { are_required: false, ..Secrets::required() }
    }

    /// Returns the secret in the environment variable `name`, which the configuration names in `key`. Returns `None`
    /// if the secret is missing and not required.
    ///
    /// # Errors
    /// Returns an error if a required secret is missing, or a secret is not UTF-8.
    pub fn variable(&self, key: &str, name: &str) -> Result<Option<String>, String> {
        match std::env::var(name) {
            Ok(secret) if !secret.trim().is_empty() => Ok(Some(secret)),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the environment variable {name} is not UTF-8 text"))
            }
            _ => self.absent(key, format!("the environment variable {name} is not set, or empty")),
        }
    }

    /// Returns the secret in `file`, which the configuration names in `key`. Returns `None` if the file is missing or
    /// not readable for this user, and the secret is not required.
    ///
    /// # Errors
    /// Returns an error if a required secret is missing. An existing file that is unusable is an error in any
    /// case.
    pub fn file(&self, key: &str, file: &str) -> Result<Option<String>, String> {
        let path = Path::new(file);
        match access(path, AccessFlags::R_OK) {
            Err(error @ (Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)) => {
                self.absent(key, format!("cannot read '{file}': {}", std::io::Error::from(error)))
            }
            _ => files::read_text(path).map(Some),
        }
    }

    fn absent(&self, key: &str, why: String) -> Result<Option<String>, String> {
        if self.are_required {
            return Err(why);
        }
        self.missing.borrow_mut().insert(format!("{why} ({key}): `gateway run` does not start without it"));
        Ok(None)
    }

    /// Returns a line for each missing secret.
    pub fn missing(&self) -> Vec<String> {
        self.missing.borrow().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_secret_is_an_error_only_if_required() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret").display().to_string();
        let required = Secrets::required();
        let error = required.variable("auth.secret_env", "GATEWAY_TEST_NO_SUCH_VARIABLE").unwrap_err();
        assert!(error.contains("GATEWAY_TEST_NO_SUCH_VARIABLE is not set"), "{error}");
        let error = required.file("auth.secret_file", &file).unwrap_err();
        assert!(error.contains("No such file"), "{error}");
        assert_eq!(required.missing(), Vec::<String>::new());

        let optional = Secrets::optional();
        assert_eq!(optional.variable("auth.secret_env", "GATEWAY_TEST_NO_SUCH_VARIABLE"), Ok(None));
        assert_eq!(optional.file("auth.secret_file", &file), Ok(None));
        // An existing file that is not a secret, such as a directory, is an error.
        assert!(optional.file("auth.secret_file", &directory.path().display().to_string()).is_err());
        assert_eq!(optional.variable("x", "PATH").unwrap(), std::env::var("PATH").ok());
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(optional.file("auth.secret_file", &file), Ok(Some("s3cret\n".to_owned())));
        let missing = optional.missing();
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(
            missing.iter().all(|line| line.ends_with("`gateway run` does not start without it")),
            "{missing:?}"
        );
        assert!(!missing.concat().contains("s3cret"));
    }
}
