//! A certificate with its key and its chain of issuers, read from two files.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::x509::{X509, X509VerifyResult};

use super::acceptor;
use crate::util::files;
use crate::util::files::Fingerprint;

/// Remaining validity below which a certificate causes a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Divisor that gives the last part of a certificate's lifetime. If this part is shorter than [`EXPIRES_SOON`], only
/// this part causes a warning. So a certificate with a lifetime of ten days causes none on its first day. ACME renews
/// certificates before that part begins.
const LAST_PART: u32 = 3;

/// Pair of files that hold a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// File with the chain in PEM: the certificate first, then each certificate's issuer.
    pub certificate: PathBuf,
    /// File with the private key of the first certificate (PEM). It may be the same file as the chain.
    pub key: PathBuf,
}

/// Error in a pair of files.
#[derive(Debug, PartialEq, Eq)]
pub enum BadPair {
    /// The file of the certificate is unusable.
    Certificate(String),
    /// The file of the key is unusable, or the key belongs to another certificate.
    Key(String),
}

/// Certificate that can be presented to clients.
pub struct Certificate {
    pub(super) chain: Vec<X509>,
    pub(super) key: PKey<Private>,
    /// Algorithm of the key: "rsa", "ecdsa" or "other".
    pub kind: &'static str,
    /// Names that the certificate is valid for.
    pub names: Vec<String>,
    /// Start of the certificate's validity.
    pub not_before: SystemTime,
    /// End of the certificate's validity.
    pub not_after: SystemTime,
    /// Origin of the certificate.
    pub(super) source: Source,
}

/// Origin of a certificate.
pub(super) enum Source {
    /// Two files, and the fingerprints that they had when they were read.
    Files(Pair, [Option<Fingerprint>; 2]),
    /// The gateway has generated the certificate.
    Generated,
}

impl Pair {
    fn look(&self) -> [Option<Fingerprint>; 2] {
        [&self.certificate, &self.key].map(|file| Fingerprint::of(file))
    }

    /// Reads and checks both files.
    ///
    /// # Errors
    /// Returns an error that names the file that cannot be read or used, and the reason.
    pub fn read(&self) -> Result<Certificate, BadPair> {
        // The fingerprints are taken before the files are read, so that a change during the read causes
        // another read.
        let read_as = self.look();
        let (file, key_file) = (self.certificate.display(), self.key.display());
        let pem = files::read(&self.certificate).map_err(BadPair::Certificate)?;
        let chain = X509::stack_from_pem(&pem).map_err(|error| {
            BadPair::Certificate(format!("'{file}' is not in PEM format: {}", reason(&error)))
        })?;
        let Some(leaf) = chain.first() else {
            return Err(BadPair::Certificate(format!("'{file}' holds no certificate")));
        };
        check_chain(&chain).map_err(|wrong| BadPair::Certificate(format!("'{file}': {wrong}")))?;
        let pem = files::read(&self.key).map_err(BadPair::Key)?;
        // OpenSSL calls this for an encrypted key. No passphrase is returned: no operator is there to be asked.
        let key = PKey::private_key_from_pem_callback(&pem, |_| Ok(0));
        let key = key.map_err(|error| {
            let reason = reason(&error);
            BadPair::Key(format!("'{key_file}' holds no unencrypted private key in PEM format: {reason}"))
        })?;
        if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
            return Err(BadPair::Key(format!("'{key_file}' is not the key of the certificate in '{file}'")));
        }
        can_be_shown(leaf, &key).map_err(|why| {
            BadPair::Certificate(format!("no client would accept the certificate in '{file}': {why}"))
        })?;
        let kind = match key.id() {
            Id::RSA | Id::RSA_PSS => "rsa",
            Id::EC => "ecdsa",
            _ => "other",
        };
        let (not_before, not_after) = (system_time(leaf.not_before()), system_time(leaf.not_after()));
        let names = names(leaf);
        let source = Source::Files(self.clone(), read_as);
        Ok(Certificate { key, kind, names, not_before, not_after, source, chain })
    }
}

impl Certificate {
    /// Returns the files that hold the certificate; `None` if the gateway has generated it.
    pub fn pair(&self) -> Option<&Pair> {
        match &self.source {
            Source::Files(pair, _) => Some(pair),
            Source::Generated => None,
        }
    }

    /// Returns true if the gateway has generated the certificate, because the virtual host has none.
    pub fn is_generated(&self) -> bool {
        matches!(self.source, Source::Generated)
    }

    /// Returns true if both files exist and are unchanged since they were read. False for a generated certificate.
    pub fn is_current(&self) -> bool {
        match &self.source {
            Source::Files(pair, read_as) => read_as.iter().all(Option::is_some) && *read_as == pair.look(),
            Source::Generated => false,
        }
    }

    /// Returns true if the gateway has generated the certificate and should replace it at the time `now`.
    pub fn needs_renewal(&self, now: SystemTime) -> bool {
        let left = self.not_after.duration_since(now).unwrap_or_default();
        self.is_generated() && left < EXPIRES_SOON
    }

    /// Returns a warning for the operator if the certificate is not valid yet at the time `now`, has expired, or
    /// expires soon. `None` for a generated certificate.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let file = self.pair()?.certificate.display();
        let what = match (self.not_before.duration_since(now), self.not_after.duration_since(now)) {
            (Ok(ahead), _) if !ahead.is_zero() => format!("becomes valid only in {}", Span(ahead)),
            (_, Err(past)) => format!("expired {} ago", Span(past.duration())),
            (_, Ok(left)) if left < self.expires_soon() => format!("expires in {}", Span(left)),
            _ => return None,
        };
        Some(format!("the certificate in '{file}' {what}"))
    }

    /// Returns the remaining validity below which the certificate should have been renewed.
    fn expires_soon(&self) -> Duration {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        EXPIRES_SOON.min(life / LAST_PART)
    }

    /// Returns true if the certificate is valid for `host`. If `host` is a wildcard, the certificate must be
    /// valid for the same wildcard (RFC 9525 6.3).
    pub fn covers(&self, host: &str) -> bool {
        let covers = |name: &String| {
            let below = name.strip_prefix("*.").zip(host.split_once('.'));
            name.eq_ignore_ascii_case(host)
                || below.is_some_and(|(parent, (_, rest))| parent.eq_ignore_ascii_case(rest))
        };
        self.names.iter().any(covers)
    }
}

/// Tries the steps of a handshake that use the certificate and the key, because OpenSSL refuses weak keys only in
/// these steps.
fn can_be_shown(leaf: &X509, key: &PKey<Private>) -> Result<(), String> {
    const CURVES: [Nid; 3] = [Nid::X9_62_PRIME256V1, Nid::SECP384R1, Nid::SECP521R1];
    let tried = acceptor::settings().and_then(|mut settings| {
        settings.set_certificate(leaf)?;
        settings.set_private_key(key)?;
        settings.check_private_key()
    });
    tried.map_err(|error| reason(&error))?;
    let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
    match curve {
        Some(curve) if !CURVES.contains(&curve) => Err(format!(
            "its key is on the curve {}; expected P-256, P-384 or P-521",
            curve.short_name().unwrap_or("without a name")
        )),
        _ => Ok(()),
    }
}

/// Checks that each certificate is followed by its issuer, because clients do not reorder the chain.
fn check_chain(chain: &[X509]) -> Result<(), String> {
    for (i, pair) in chain.windows(2).enumerate() {
        let [below, above] = pair else { continue };
        let signed = above.public_key().and_then(|key| below.verify(&key)).unwrap_or(false);
        if above.issued(below) != X509VerifyResult::OK || !signed {
            let (below, above) = (i + 1, i + 2);
            return Err(format!(
                "certificate {below} is not followed by the one that issued it, but by {above}"
            ));
        }
    }
    Ok(())
}

fn names(leaf: &X509) -> Vec<String> {
    let alternative = leaf.subject_alt_names();
    let names = alternative.iter().flatten();
    names
        .filter_map(|name| {
            let address = || match *name.ipaddress()? {
                [a, b, c, d] => Some(std::net::IpAddr::from([a, b, c, d]).to_string()),
                ref long => <[u8; 16]>::try_from(long)
                    .ok()
                    .map(|long| format!("[{}]", std::net::Ipv6Addr::from(long))),
            };
            name.dnsname().map(str::to_owned).or_else(address)
        })
        .collect()
}

/// Converts an ASN.1 time to a system time. A time that cannot be converted becomes 1970, long expired.
pub(super) fn system_time(time: &Asn1TimeRef) -> SystemTime {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    let secs = since.map_or(0, |since| i64::from(since.days) * 86_400 + i64::from(since.secs));
    UNIX_EPOCH + Duration::from_secs(u64::try_from(secs).unwrap_or(0))
}

pub(super) fn reason(error: &ErrorStack) -> String {
    let said = error.errors().first().and_then(|error| error.reason());
    said.unwrap_or("OpenSSL gives no reason").to_owned()
}

/// Duration that is displayed in days, hours or minutes.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes) = (self.0.as_secs() / 3600, self.0.as_secs() / 60);
        match (hours / 24, hours, minutes) {
            (days @ 2.., _, _) => write!(f, "{days} days"),
            (_, hours @ 2.., _) => write!(f, "{hours} hours"),
            (_, _, minutes) => write!(f, "{minutes} minutes"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use testkit::tls::Authority;

    use super::*;

    pub(crate) fn pair(authority: &Authority, name: &str) -> (testkit::tls::Identity, Pair) {
        let identity = authority.issue(name);
        let pair = Pair { certificate: identity.certificate_file(), key: identity.key_file() };
        (identity, pair)
    }

    #[test]
    fn pair_is_current_until_a_file_changes() {
        let authority = Authority::new();
        let (_files, pair) = pair(&authority, "web.test");
        let certificate = pair.read().unwrap();
        assert_eq!((certificate.kind, &certificate.names[..]), ("ecdsa", &["web.test".to_owned()][..]));
        assert!(certificate.is_current() && certificate.warning(SystemTime::now()).is_none());
        std::fs::copy(authority.certificate_file(), &pair.certificate).unwrap();
        assert!(!certificate.is_current());
        std::fs::remove_file(&pair.key).unwrap();
        assert!(!certificate.is_current());
    }

    #[test]
    fn error_names_the_file_at_fault() {
        let authority = Authority::new();
        let ((_a, one), (_b, other)) = (pair(&authority, "one.test"), pair(&authority, "other.test"));
        let swapped = Pair { key: other.key.clone(), ..one.clone() };
        assert!(
            matches!(swapped.read(), Err(BadPair::Key(detail)) if detail.contains("is not the key of the certificate"))
        );
        let missing = Pair { key: "/no/such.key".into(), ..one.clone() };
        assert!(
            matches!(missing.read(), Err(BadPair::Key(detail)) if detail.contains("cannot read '/no/such.key'"))
        );
        let exchanged = Pair { certificate: one.key.clone(), key: one.certificate.clone() };
        assert!(
            matches!(exchanged.read(), Err(BadPair::Certificate(detail)) if detail.contains("no certificate"))
        );
        // The second certificate is another leaf and not the issuer of the first.
        let both = [&one.certificate, &other.certificate].map(|file| std::fs::read(file).unwrap()).concat();
        std::fs::write(&one.certificate, both).unwrap();
        let wrong = one.read().err();
        assert!(
            matches!(&wrong, Some(BadPair::Certificate(detail)) if detail.contains("certificate 1 is not followed by")),
            "{wrong:?}"
        );
    }

    /// Writes a self-signed certificate with this key.
    fn self_signed_with(key: &PKey<Private>) -> (tempfile::TempDir, Pair) {
        let mut certificate = X509::builder().unwrap();
        certificate.set_pubkey(key).unwrap();
        certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        certificate.set_not_after(&Asn1Time::days_from_now(90).unwrap()).unwrap();
        certificate.sign(key, openssl::hash::MessageDigest::sha256()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let [file, key_file] = ["a.crt", "a.key"].map(|name| directory.path().join(name));
        std::fs::write(&file, certificate.build().to_pem().unwrap()).unwrap();
        std::fs::write(&key_file, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        (directory, Pair { certificate: file, key: key_file })
    }

    #[test]
    fn certificate_with_weak_key_is_refused_when_read() {
        use openssl::ec::{EcGroup, EcKey};
        let rsa = |bits| PKey::from_rsa(openssl::rsa::Rsa::generate(bits).unwrap()).unwrap();
        let ec = |curve| {
            PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
        };
        for key in [rsa(1024), ec(Nid::BRAINPOOL_P256R1)] {
            let (_directory, pair) = self_signed_with(&key);
            let refused = pair.read().err();
            assert!(
                matches!(&refused, Some(BadPair::Certificate(why)) if why.contains("no client would accept")),
                "{refused:?}"
            );
        }
        for key in [rsa(2048), ec(Nid::SECP384R1)] {
            let (_directory, pair) = self_signed_with(&key);
            assert!(pair.read().is_ok());
        }
        let directory = Pair { certificate: "/".into(), key: "/".into() };
        assert!(
            matches!(directory.read(), Err(BadPair::Certificate(why)) if why.contains("is not a regular file"))
        );
    }

    #[test]
    fn certificate_that_expires_soon_gets_a_warning() {
        let authority = Authority::new();
        let certificate = pair(&authority, "web.test").1;
        let certificate = certificate.read();
        assert!(certificate.is_err(), "the files go with their owner");
        let (_files, pair) = pair(&authority, "web.test");
        let mut certificate = pair.read().unwrap();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 60 * 60);
        let mut warning = |not_before, not_after| {
            (certificate.not_before, certificate.not_after) = (not_before, not_after);
            certificate.warning(now).map(|warning| warning.rsplit("' ").next().unwrap().to_owned())
        };
        assert_eq!(warning(now - 365 * day, now + 31 * day), None);
        assert_eq!(warning(now - 365 * day, now + 29 * day).as_deref(), Some("expires in 29 days"));
        // The limit is a third of the lifetime if that is less than 30 days.
        for days in [1, 6, 10, 47, 89] {
            let life = days * day;
            let (begins, ends) = (now - life * 65 / 100, now + life * 35 / 100);
            assert_eq!(warning(begins, ends), None, "{days} days, a third left and some");
            let (begins, ends) = (now - life * 68 / 100, now + life * 32 / 100);
            assert!(warning(begins, ends).is_some(), "{days} days, less than a third left");
            assert_eq!(warning(now, now + life), None, "{days} days, new");
        }
        assert_eq!(warning(now - 9 * day, now + day / 2).as_deref(), Some("expires in 12 hours"));
        assert_eq!(warning(now - day, now - day * 3).as_deref(), Some("expired 3 days ago"));
        assert_eq!(warning(now + day * 3, now + 90 * day).as_deref(), Some("becomes valid only in 3 days"));
    }

    #[test]
    fn wildcard_certificate_covers_exactly_one_label() {
        let authority = Authority::new();
        let (_files, pair) = pair(&authority, "*.Example.com");
        let certificate = pair.read().unwrap();
        for (host, covered) in [
            ("a.example.com", true),
            ("*.example.com", true),
            ("a.b.example.com", false),
            ("example.com", false),
            ("badexample.com", false),
        ] {
            assert_eq!(certificate.covers(host), covered, "{host}");
        }
    }
}
