//! Valid and forged tokens, made by hand: a JWT library refuses to make most of the forged ones.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer as Signing;
use serde_json::{Value, json};

use super::{AUDIENCE, ISSUER};

/// An RSA key pair that signs tokens.
pub(super) struct Signer {
    key: PKey<Private>,
}

impl Signer {
    pub(super) fn new() -> Signer {
        Signer { key: PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap() }
    }

    pub(super) fn public_pem(&self) -> String {
        String::from_utf8(self.key.public_key_to_pem().unwrap()).unwrap()
    }

    pub(super) fn public_der(&self) -> Vec<u8> {
        self.key.public_key_to_der().unwrap()
    }

    /// Returns the public key as a JWK, as an issuer publishes it.
    pub(super) fn jwk(&self, kid: &str) -> Value {
        let rsa = self.key.rsa().unwrap();
        let [n, e] = [rsa.n(), rsa.e()].map(|number| URL_SAFE_NO_PAD.encode(number.to_vec()));
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e })
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signing = Signing::new(MessageDigest::sha256(), &self.key).unwrap();
        signing.sign_oneshot_to_vec(message).unwrap()
    }

    /// Returns a token with this header, which should name RS256, and these claims.
    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        token(header, claims, |message| self.sign(message))
    }

    /// Returns a valid token with these changes of its claims.
    pub(super) fn token_with(&self, changes: Value) -> String {
        self.token(&json!({ "alg": "RS256", "typ": "JWT" }), &claims(changes))
    }

    /// Returns a valid token.
    pub(super) fn good(&self) -> String {
        self.token_with(json!({}))
    }
}

/// Returns the claims of a valid token with these changes; `null` removes a claim.
pub(super) fn claims(changes: Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now() + 600 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

pub(super) fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encode(signature))
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn hmac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    // OpenSSL accepts no empty key. One zero byte gives the same result, because HMAC pads keys with zeros (RFC
    // 2104 2).
    let key = PKey::hmac(if secret.is_empty() { b"\0" } else { secret }).unwrap();
    Signing::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(message).unwrap()
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
