//! Certificates that are signed by themselves: for learning (`gateway dev-cert`), and for virtual hosts that have none.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
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

/// How long it counts. Browsers refuse much more.
const DAYS: u32 = 90;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// It cannot be for this name.
    #[error(
        "'{0}' cannot be the name of a certificate; expected something like \"localhost\" or \"*.example.test\""
    )]
    Name(String),
    /// A file cannot be written, or is there already.
    #[error("cannot write '{}': {source}; nothing that is there is replaced", file.display())]
    Write {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// OpenSSL refuses.
    #[error("cannot make a certificate: {0}")]
    Openssl(#[from] ErrorStack),
}

/// Makes a certificate for `names` and its key (ECDSA, P-256), and writes them into `directory` under the first
/// name.
///
/// # Errors
/// See [`SelfSignedError`]; no file is replaced.
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
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let written = opened.and_then(|mut file| file.write_all(content));
    written.map_err(|source| SelfSignedError::Write { file: file.to_owned(), source })
}

/// Makes a certificate for `names` that stays in memory.
///
/// # Errors
/// Where OpenSSL refuses.
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
    // At most 64 characters (RFC 5280, ub-common-name); what counts is in the alternative names.
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
    // It is its own authority, so that clients can be told to trust it.
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
    fn it_can_be_shown_and_its_key_is_for_the_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["localhost", "*.app.test", "127.0.0.1", "::1"].map(str::to_owned);
        let pair = self_signed(&names, directory.path()).unwrap();
        let certificate = pair.read().unwrap();
        assert_eq!(certificate.names, ["localhost", "*.app.test", "127.0.0.1", "[::1]"]);
        assert_eq!(pair.key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let again = self_signed(&names, directory.path()).unwrap_err().to_string();
        assert!(again.contains("nothing that is there is replaced"), "{again}");
        assert!(self_signed(&["*".to_owned()], directory.path()).is_err());
        assert!(self_signed(&["a b".to_owned()], directory.path()).is_err());
    }

    #[test]
    fn one_in_memory_is_renewed_before_it_ends() {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let certificate = in_memory(&names).unwrap();
        assert_eq!((certificate.kind, &certificate.names[..]), ("ecdsa", &names[..]));
        let (now, day) = (std::time::SystemTime::now(), std::time::Duration::from_secs(24 * 60 * 60));
        assert!(!certificate.needs_renewal(now + 50 * day));
        assert!(certificate.needs_renewal(now + 61 * day));
        assert_eq!(certificate.warning(now + 61 * day), None, "nobody has to do anything");
    }
}
