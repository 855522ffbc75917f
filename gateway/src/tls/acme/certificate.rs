//! Reader of a PEM file with a key and its chain. A renewal depends only on the names and the validity.

use std::collections::BTreeSet;
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::x509::X509;

use crate::tls::certificate::system_time;

/// Names and validity of a certificate that can be served, because its file contains the right key too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Start of the certificate's validity.
    pub not_before: SystemTime,
    /// End of the certificate's validity.
    pub not_after: SystemTime,
    /// DNS names that the certificate is valid for, in lower case.
    pub names: BTreeSet<String>,
}

/// Reason why a PEM file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// OpenSSL cannot read the file.
    #[error("it holds no key and certificate in PEM format: {0}")]
    Unreadable(#[from] ErrorStack),
    /// The file holds a key, but no certificate.
    #[error("it holds no certificate")]
    Missing,
    /// The file's key is the key of another certificate.
    #[error("its key does not belong to its certificate")]
    AnotherKey,
}

impl Certificate {
    /// Reads a key and its chain, the leaf first.
    ///
    /// # Errors
    /// Returns an error if the key or the chain is missing or unreadable, or they do not belong together.
    pub fn read(pem: &[u8]) -> Result<Certificate, BadCertificate> {
        let key = PKey::private_key_from_pem(pem)?;
        let chain = X509::stack_from_pem(pem)?;
        let leaf = chain.first().ok_or(BadCertificate::Missing)?;
        if !leaf.public_key()?.public_eq(&key) {
            return Err(BadCertificate::AnotherKey);
        }
        let names = leaf.subject_alt_names();
        let names = names.iter().flatten().filter_map(|name| name.dnsname());
        Ok(Certificate {
            not_before: system_time(leaf.not_before()),
            not_after: system_time(leaf.not_after()),
            names: names.map(str::to_ascii_lowercase).collect(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use testkit::tls::Authority;

    use super::*;

    /// Returns a key and a certificate for `name`, in one PEM.
    pub(in super::super) fn pem(name: &str) -> String {
        let identity = Authority::new().issue(name);
        let read = |path| std::fs::read_to_string(path).unwrap();
        read(identity.key_file()) + &read(identity.certificate_file())
    }

    #[test]
    fn names_and_validity_of_a_certificate_are_read() {
        let certificate = Certificate::read(pem("Shop.example").as_bytes()).unwrap();
        assert_eq!(certificate.names, BTreeSet::from(["shop.example".to_owned()]));
        let now = SystemTime::now();
        assert!(certificate.not_before < now && now < certificate.not_after, "{certificate:?}");
    }

    #[test]
    fn pem_that_cannot_be_served_is_an_error() {
        let (one, other) = (pem("a.example"), pem("b.example"));
        let certificate = |pem: &str| pem[pem.find("-----BEGIN CERTIFICATE").unwrap()..].to_owned();
        let key = |pem: &str| pem[..pem.find("-----BEGIN CERTIFICATE").unwrap()].to_owned();
        let read = |pem: String| Certificate::read(pem.as_bytes()).unwrap_err();
        assert!(matches!(read(key(&one) + &certificate(&other)), BadCertificate::AnotherKey));
        assert!(matches!(read(key(&one)), BadCertificate::Missing));
        for text in [certificate(&one), String::new(), "nonsense".to_owned(), one[..one.len() / 2].to_owned()]
        {
            Certificate::read(text.as_bytes()).unwrap_err();
        }
    }
}
