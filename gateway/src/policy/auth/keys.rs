//! Keys that verify tokens. Each key is for one family of algorithms, and a token cannot choose another family.
//! A public key is therefore never used as a secret (RFC 8725 2.1).

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::x509::X509;

use crate::config::JwtAlgorithm;

/// Minimum length of a secret, in bytes, because a shorter secret can be guessed. RFC 7518 3.2 demands at least
/// the length of the hash.
const MIN_SECRET_BYTES: usize = 32;
/// Minimum length of an RSA key, in bits (RFC 7518 3.3).
const MIN_RSA_BITS: u32 = 2048;

/// Key that verifies the signatures of tokens.
pub(super) struct Key {
    /// Id of the key (`kid`); `None` if the key has no id and may verify any token.
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
    /// Algorithms for which the key is used.
    pub(super) algorithms: Vec<Algorithm>,
}

impl Key {
    fn new(key: DecodingKey, algorithms: &[Algorithm]) -> Self {
        Key { id: None, key, algorithms: algorithms.to_vec() }
    }

    /// Returns true if this key may have signed a token with this `kid`. A key without id matches every `kid`.
    pub(super) fn is_called(&self, kid: &str) -> bool {
        self.id.as_deref().is_none_or(|id| id == kid)
    }

    /// Creates a key from a shared secret.
    ///
    /// # Errors
    /// Returns an error if the secret is too short.
    pub(super) fn secret(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(format!(
                "the secret has {} bytes and needs {MIN_SECRET_BYTES}; make one with `openssl rand -base64 48`",
                secret.len()
            ));
        }
        Ok(Key::new(DecodingKey::from_secret(secret), AlgorithmFamily::Hmac.algorithms()))
    }

    /// Parses every public key and certificate in `text` (PEM).
    ///
    /// # Errors
    /// Returns an error if there is no key, or if one of the keys cannot be used.
    pub(super) fn from_pem(text: &str) -> Result<Vec<Self>, String> {
        let mut keys = Vec::new();
        for block in text.split("-----BEGIN ").skip(1) {
            let kind = block.split("-----").next().unwrap_or_default();
            let pem = format!("-----BEGIN {block}");
            let key = match kind {
                "PUBLIC KEY" => PKey::public_key_from_pem(pem.as_bytes()).ok(),
                "RSA PUBLIC KEY" => {
                    let rsa = openssl::rsa::Rsa::public_key_from_pem_pkcs1(pem.as_bytes());
                    rsa.and_then(PKey::from_rsa).ok()
                }
                "CERTIFICATE" => X509::from_pem(pem.as_bytes()).and_then(|shown| shown.public_key()).ok(),
                private if private.ends_with("PRIVATE KEY") => {
                    return Err("there is a private key, which belongs to the issuer alone".to_owned());
                }
                other => return Err(format!("there is a {other}, which is not a public key")),
            };
            keys.push(Key::public(&key.ok_or_else(|| format!("there is a {kind} that is damaged"))?)?);
        }
        if keys.is_empty() { Err("there is no public key in PEM".to_owned()) } else { Ok(keys) }
    }

    fn public(key: &PKey<Public>) -> Result<Self, String> {
        let damaged = |error: openssl::error::ErrorStack| format!("there is a key that is damaged: {error}");
        match key.id() {
            Id::RSA if key.bits() < MIN_RSA_BITS => {
                Err(format!("there is an RSA key of {} bits; at least {MIN_RSA_BITS}", key.bits()))
            }
            Id::RSA => {
                let rsa = key.rsa().map_err(damaged)?;
                let key = DecodingKey::from_rsa_raw_components(&rsa.n().to_vec(), &rsa.e().to_vec());
                Ok(Key::new(key, AlgorithmFamily::Rsa.algorithms()))
            }
            Id::EC => {
                let ec = key.ec_key().map_err(damaged)?;
                let algorithm = match ec.group().curve_name() {
                    Some(Nid::X9_62_PRIME256V1) => Algorithm::ES256,
                    Some(Nid::SECP384R1) => Algorithm::ES384,
                    _ => return Err("there is a key on a curve that is neither P-256 nor P-384".to_owned()),
                };
                let mut context = openssl::bn::BigNumContext::new().map_err(damaged)?;
                let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
                let point = ec.public_key().to_bytes(ec.group(), form, &mut context).map_err(damaged)?;
                Ok(Key::new(DecodingKey::from_ec_der(&point), &[algorithm]))
            }
            Id::ED25519 => {
                let raw = key.raw_public_key().map_err(damaged)?;
                Ok(Key::new(DecodingKey::from_ed_der(&raw), &[Algorithm::EdDSA]))
            }
            _ => Err("there is a key that is neither RSA, EC nor Ed25519".to_owned()),
        }
    }
}

/// Converts an algorithm of the configuration to the library's type.
pub(super) fn algorithm(named: JwtAlgorithm) -> Algorithm {
    match named {
        JwtAlgorithm::HS256 => Algorithm::HS256,
        JwtAlgorithm::HS384 => Algorithm::HS384,
        JwtAlgorithm::HS512 => Algorithm::HS512,
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
