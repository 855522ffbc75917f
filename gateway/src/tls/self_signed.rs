//! Self-signed certificates: for learning (`gateway dev-cert`), and for virtual hosts that have no
//! certificate.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};

use super::Pair;
use super::certificate::{Certificate, Source, system_time};
use crate::config::Domain;
use crate::util::files;

/// Validity of a self-signed certificate, in days. Browsers refuse a much longer validity.
const DAYS: u32 = 90;

/// Reason why no self-signed certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// A certificate cannot be made for this name.
    #[error(
        "'{0}' is not a valid name for a certificate; expected something like \"localhost\" or \"*.example.test\""
    )]
    Name(String),
    /// A file cannot be written, or already exists.
    #[error("cannot write '{}': {source}; existing files are not replaced", file.display())]
    Write {
        /// File that could not be written.
        file: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// OpenSSL refused an operation.
    #[error("cannot make a certificate: {0}")]
    Openssl(#[from] ErrorStack),
}

/// Makes a self-signed certificate for `names` with a new key (ECDSA, P-256), and writes both to `directory`,
/// in files named after the first name.
///
/// # Errors
/// Returns an error if a name is invalid, a file cannot be written or already exists, or OpenSSL refuses an
/// operation. No file is replaced.
pub fn self_signed(names: &[String], directory: &Path) -> Result<Pair, SelfSignedError> {
    for name in names {
        let is_address = name.parse::<IpAddr>().is_ok();
        if !is_address && matches!(name.parse::<Domain>(), Err(_) | Ok(Domain::CatchAll)) {
            return Err(SelfSignedError::Name(name.clone()));
        }
    }
    let (certificate, key) = generate(names)?;
    let first = names.first().map_or("localhost", String::as_str).replace('*', "any").replace(':', "-");
    let pair = Pair {
        certificate: directory.join(format!("{first}.crt")),
        key: directory.join(format!("{first}.key")),
    };
    write(&pair.key, 0o600, &key.private_key_to_pem_pkcs8()?)?;
    write(&pair.certificate, 0o644, &certificate.to_pem()?)?;
    Ok(pair)
}

fn write(file: &Path, mode: u32, content: &[u8]) -> Result<(), SelfSignedError> {
    files::create(file, content, mode, None)
        .map_err(|source| SelfSignedError::Write { file: file.to_owned(), source })
}

/// Makes a self-signed certificate for `names` that stays in memory.
///
/// # Errors
/// Returns an error if OpenSSL refuses an operation.
pub fn in_memory(names: &[String]) -> Result<Certificate, SelfSignedError> {
    let (certificate, key) = generate(names)?;
    Ok(Certificate {
        names: names.to_vec(),
        not_before: system_time(certificate.not_before()),
        not_after: system_time(certificate.not_after()),
        chain: vec![certificate],
        key,
        kind: "ecdsa",
        source: Source::Generated,
    })
}

fn generate(names: &[String]) -> Result<(X509, PKey<Private>), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut subject = X509Name::builder()?;
    // A common name longer than 64 characters is not allowed (RFC 5280, ub-common-name). Clients use only the
    // alternative names.
    let common_name = names.first().filter(|name| name.len() <= 64);
    subject.append_entry_by_nid(Nid::COMMONNAME, common_name.map_or("gateway", String::as_str))?;
    let subject = subject.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut alternative = SubjectAlternativeName::new();
    for name in names {
        match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => alternative.ip(&address.to_string()),
            Err(_) => alternative.dns(name),
        };
    }
    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    certificate.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    certificate.set_subject_name(&subject)?;
    certificate.set_issuer_name(&subject)?;
    certificate.set_pubkey(&key)?;
    certificate.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    certificate.set_not_after(Asn1Time::days_from_now(DAYS)?.as_ref())?;
    // The certificate is marked as an authority, so that a client can be configured to trust it.
    certificate.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    certificate.append_extension(KeyUsage::new().critical().digital_signature().key_cert_sign().build()?)?;
    certificate.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    let alternative = alternative.build(&certificate.x509v3_context(None, None))?;
    certificate.append_extension(alternative)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    Ok((certificate.build(), key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn self_signed_pair_is_readable_and_key_is_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["localhost", "*.app.test", "127.0.0.1", "::1"].map(str::to_owned);
        let pair = self_signed(&names, directory.path()).unwrap();
        let certificate = pair.read().unwrap();
        assert_eq!(certificate.names, ["localhost", "*.app.test", "127.0.0.1", "[::1]"]);
        assert_eq!(pair.key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let again = self_signed(&names, directory.path()).unwrap_err().to_string();
        assert!(again.contains("existing files are not replaced"), "{again}");
        assert!(self_signed(&["*".to_owned()], directory.path()).is_err());
        assert!(self_signed(&["a b".to_owned()], directory.path()).is_err());
    }

    #[test]
    fn generated_certificate_needs_renewal_before_expiry() {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let certificate = in_memory(&names).unwrap();
        assert_eq!((certificate.kind, &certificate.names[..]), ("ecdsa", &names[..]));
        let (now, day) = (std::time::SystemTime::now(), std::time::Duration::from_secs(24 * 60 * 60));
        assert!(!certificate.needs_renewal(now + 50 * day));
        assert!(certificate.needs_renewal(now + 61 * day));
        assert_eq!(certificate.warning(now + 61 * day), None, "nobody has to do anything");
    }
}
