//! Parses a set of public keys that an issuer publishes (JWKS, RFC 7517 5), and selects the keys that can
//! verify tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::Value;

use super::keys::Key;

/// Maximum number of keys in a set.
const MAX_KEYS: usize = 100;
/// Maximum number of characters of a `kid` in a message.
const MAX_SHOWN: usize = 64;

/// Parsed set of keys.
pub(super) struct JwkSet {
    /// Keys that can verify tokens.
    pub(super) keys: Vec<Key>,
    /// Reasons why signature keys of the set are ignored, one for each ignored key.
    pub(super) passed_over: Vec<String>,
}

/// Reason why a key of a set is not used.
enum Unusable {
    /// The key is not meant for signatures.
    Foreign,
    /// The key is meant for signatures but has the described fault.
    Wrong(String),
}

impl JwkSet {
    /// Parses a set. An empty set is valid: an issuer publishes an empty set to revoke all its keys.
    ///
    /// # Errors
    /// Returns an error if the text is not a set, or if the set has keys but no key is usable.
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_slice(json).map_err(|error| format!("not a JSON Web Key Set: {error}"))?;
        if set.keys.len() > MAX_KEYS {
            return Err(format!("there are {} keys; at most {MAX_KEYS}", set.keys.len()));
        }
        let is_empty = set.keys.is_empty();
        let mut read = JwkSet { keys: Vec::new(), passed_over: Vec::new() };
        for (i, value) in set.keys.into_iter().enumerate() {
            let name = name(&value, i);
            match key(value) {
                Ok(key) => read.keys.push(key),
                Err(Unusable::Foreign) => {}
                Err(Unusable::Wrong(reason)) => read.passed_over.push(format!("{name}: {reason}")),
            }
        }
        match (read.keys.is_empty() && !is_empty, read.passed_over.is_empty()) {
            (true, true) => Err("there is no key in it that signs tokens".to_owned()),
            (true, false) => {
                Err(format!("there is no key in it that signs tokens: {}", read.passed_over.join("; ")))
            }
            (false, _) => Ok(read),
        }
    }
}

/// Returns the name of a key for messages: its `kid`, which the issuer has chosen, or its position.
fn name(value: &Value, index: usize) -> String {
    match value.get("kid").and_then(Value::as_str) {
        Some(kid) => format!("key {:?}", kid.chars().take(MAX_SHOWN).collect::<String>()),
        None => format!("key number {}", index + 1),
    }
}

fn key(mut value: Value) -> Result<Key, Unusable> {
    let wrong = |reason: String| Unusable::Wrong(reason);
    unpad(&mut value);
    let kind = value.get("kty").and_then(Value::as_str).unwrap_or_default().to_owned();
    let jwk = serde_json::from_value::<Jwk>(value)
        .map_err(|error| wrong(format!("it is not a JSON Web Key: {error}")))?;
    let common = &jwk.common;
    let for_signing = common.public_key_use.as_ref().is_none_or(|use_| *use_ == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !for_signing || !verifies {
        return Err(Unusable::Foreign);
    }
    let of_kind = of_kind(&kind, &jwk.algorithm).map_err(|reason| wrong(reason.to_owned()))?;
    let algorithms: Vec<Algorithm> = match common.key_algorithm {
        None => of_kind.to_vec(),
        Some(named) => {
            let named: Option<Algorithm> = named.to_string().parse().ok();
            of_kind.iter().copied().filter(|algorithm| Some(*algorithm) == named).collect()
        }
    };
    if algorithms.is_empty() {
        return Err(wrong("its `alg` does not fit its kind of key, or is not supported here".to_owned()));
    }
    check_numbers(&jwk.algorithm).map_err(wrong)?;
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| wrong(error.to_string()))?;
    Ok(Key { id: common.key_id.clone(), key, algorithms })
}

/// Returns the algorithms that a key of this kind can verify.
fn of_kind(kind: &str, parameters: &AlgorithmParameters) -> Result<&'static [Algorithm], &'static str> {
    match parameters {
        AlgorithmParameters::RSA(_) => Ok(AlgorithmFamily::Rsa.algorithms()),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Ok(&[Algorithm::ES256]),
            EllipticCurve::P384 => Ok(&[Algorithm::ES384]),
            _ => Err("its curve is neither P-256 nor P-384"),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Ok(&[Algorithm::EdDSA])
        }
        AlgorithmParameters::OctetKeyPair(_) => Err("its curve is not Ed25519"),
        AlgorithmParameters::OctetKey(_) => Err("it is a symmetric key, which must not be published"),
        // The library reports a key that it cannot read as a key of an unknown kind.
        _ if matches!(kind, "RSA" | "EC" | "OKP") => {
            Err("it lacks a member that its kind of key needs (RFC 7518 6)")
        }
        _ => Err("its kind (`kty`) is not supported here"),
    }
}

/// Removes the padding of a key's numbers. RFC 7515 2 does not allow padding, but some issuers write it. The
/// padding does not change the number.
fn unpad(key: &mut Value) {
    for name in ["n", "e", "x", "y"] {
        if let Some(Value::String(number)) = key.get_mut(name) {
            let length = number.trim_end_matches('=').len();
            if number.len() - length <= 2 {
                number.truncate(length);
            }
        }
    }
}

/// Checks that the numbers of a key are readable and have the required length. RSA needs at least 2048 bits
/// (RFC 7518 3.3, 6.2, RFC 8037 2).
fn check_numbers(parameters: &AlgorithmParameters) -> Result<(), String> {
    let length = |name: &str, number: &str| {
        let decoded = URL_SAFE_NO_PAD.decode(number);
        decoded
            .map(|number| number.len())
            .map_err(|error| format!("its `{name}` is not valid base64url: {error}"))
    };
    match parameters {
        AlgorithmParameters::RSA(key) => match (length("n", &key.n)?, length("e", &key.e)?) {
            (256.., 1..) => Ok(()),
            (bytes, _) => Err(format!("it has {} bits; at least 2048", bytes * 8)),
        },
        AlgorithmParameters::EllipticCurve(key) => {
            let of_curve = if key.curve == EllipticCurve::P384 { 48 } else { 32 };
            match (length("x", &key.x)?, length("y", &key.y)?) {
                (x, y) if x == of_curve && y == of_curve => Ok(()),
                _ => Err(format!("its `x` and `y` are not the {of_curve} bytes that its curve needs")),
            }
        }
        AlgorithmParameters::OctetKeyPair(key) => match length("x", &key.x)? {
            32 => Ok(()),
            bytes => Err(format!("its `x` has {bytes} bytes; expected 32")),
        },
        _ => Err("its kind (`kty`) is not supported here".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Public key of Ed25519 (RFC 8037 A.2).
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn read(keys: Value) -> Result<(Vec<String>, Vec<String>), String> {
        let set = JwkSet::read(json!({ "keys": keys }).to_string().as_bytes())?;
        Ok((set.keys.into_iter().map(|key| key.id.unwrap_or_default()).collect(), set.passed_over))
    }

    fn ed(kid: &str, x: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid })
    }

    #[test]
    fn padded_numbers_equal_unpadded_ones() {
        let rsa = |n: &str, e: &str| json!({ "kty": "RSA", "n": n, "e": e, "kid": "rsa" });
        let n = URL_SAFE_NO_PAD.encode([0xff; 256]);
        let ec = |x: &str, y: &str| json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "ec" });
        let xy = URL_SAFE_NO_PAD.encode([1; 32]);
        for (plain, padded) in [
            (ed("a", X), ed("a", &format!("{X}="))),
            (rsa(&n, "AQAB"), rsa(&format!("{n}=="), "AQAB")),
            (rsa(&n, "Aw"), rsa(&n, "Aw==")),
            (ec(&xy, &xy), ec(&format!("{xy}="), &format!("{xy}="))),
        ] {
            let plain = read(json!([plain])).unwrap();
            assert_eq!(plain.0.len(), 1);
            assert_eq!(read(json!([padded])).unwrap(), plain);
        }
    }

    #[test]
    fn ignored_key_is_reported_with_the_reason() {
        let good = ed("good", X);
        for (key, reason) in [
            (ed("a", "11qY*"), "key \"a\": its `x` is not valid base64url: "),
            (ed("a", &format!("{X}===")), "key \"a\": its `x` is not valid base64url: "),
            (ed("a", &format!("={X}")), "key \"a\": its `x` is not valid base64url: "),
            (ed("a", &X.replace('_', "/")), "key \"a\": its `x` is not valid base64url: "),
            (ed("a", "AAAA"), "key \"a\": its `x` has 3 bytes; expected 32"),
            (
                json!({ "kty": "RSA", "n": "AAAA", "e": "AQAB" }),
                "key number 2: it has 24 bits; at least 2048",
            ),
            (
                json!({ "kty": "RSA", "e": "AQAB" }),
                "key number 2: it lacks a member that its kind of key needs",
            ),
            (json!({ "kty": "PQ", "e": "AQAB" }), "key number 2: its kind (`kty`) is not supported here"),
            (json!({ "kty": "EC", "crv": "P-521", "x": X, "y": X }), "neither P-256 nor P-384"),
            (json!({ "kty": "EC", "crv": "P-384", "x": X, "y": X }), "not the 48 bytes that its curve needs"),
            (json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "alg": "RS256" }), "its `alg` does not fit"),
            (json!({ "kty": "oct", "k": "AAAA" }), "a symmetric key, which must not be published"),
            (json!("nonsense"), "key number 2: it is not a JSON Web Key: "),
            (ed("\r\nfake", "AAAA"), "key \"\\r\\nfake\": its `x`"),
            (ed(&"k".repeat(1000), "AAAA"), &format!("key \"{}\": its `x`", "k".repeat(64))),
        ] {
            let (ids, passed_over) = read(json!([good, key])).unwrap();
            assert_eq!(ids, ["good"], "{key}");
            assert!(passed_over.len() == 1 && passed_over[0].contains(reason), "{passed_over:?}");
            let error = read(json!([key])).unwrap_err();
            assert!(error.starts_with("there is no key in it that signs tokens: key "), "{error}");
        }
        let for_encryption = json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "use": "enc" });
        assert_eq!(read(json!([good, for_encryption])).unwrap(), (vec!["good".to_owned()], vec![]));
    }
}
