//! `gateway dev-cert`: makes a self-signed certificate for development.

use std::path::Path;

use crate::cli::error::CliError;
use crate::tls::{Pair, self_signed};

/// Makes a certificate for `domains` and its key, in the directory `out`.
#[expect(clippy::print_stdout, reason = "a command answers on standard output")]
pub(super) fn dev_cert(domains: &[String], out: &Path) -> Result<(), CliError> {
    let Pair { certificate, key } = self_signed(domains, out)?;
    println!("cert_file = {:?}\nkey_file = {:?}", certificate.display(), key.display());
    Ok(())
}
