//! Authentication by a key in a header field. The file contains only hashes of the keys, so a person who reads
//! the file cannot use it to authenticate.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use openssl::sha::sha256;

use super::challenge::{Challenge, quoted};
use super::{Credentials, Identity, one};
use crate::reply::Verdict;

/// Identities of a keys file, by the hash of the key.
pub(super) struct Keys(HashMap<[u8; 32], Arc<Identity>>);

impl Keys {
    /// Parses `text`, the content of `file`, which has one `name:hash` a line. Backends get the name in
    /// `field`.
    ///
    /// # Errors
    /// Returns a description of the first faulty line, and a remedy.
    pub(super) fn read(file: &str, text: &str, field: Option<&HeaderName>) -> Result<Self, String> {
        let mut keys = HashMap::new();
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("{file}:{number}: {what}");
            let Some((name, hash)) = line.split_once(':').map(|(name, hash)| (name.trim(), hash.trim()))
            else {
                return Err(wrong("expected `name:hash`; `printf %s KEY | sha256sum` prints the hash"));
            };
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(wrong("a key needs the name of its holder"));
            }
            // The message does not show the name: if the operator swapped both parts, the name is a key.
            let Some(hash) = sha256_in_hex(hash) else {
                return Err(wrong(
                    "expected a name, ':' and the 64 hexadecimal digits of a SHA-256, in this order; not a key",
                ));
            };
            if hash == sha256(b"") || hash == sha256(b"\n") {
                return Err(wrong("this is the hash of an empty key"));
            }
            if keys.insert(hash, Arc::new(Identity::named(name, field))).is_some() {
                return Err(wrong("this key is defined twice"));
            }
        }
        if keys.is_empty() {
            return Err(format!("'{file}' holds no key; add a line `name:hash`"));
        }
        Ok(Keys(keys))
    }

    /// Returns the owner of the key; `None` if the key is unknown. A plain lookup by hash is safe: its time
    /// reveals nothing about a key, because a client cannot choose the hash of its guess.
    fn bearer(&self, key: &[u8]) -> Option<Arc<Identity>> {
        self.0.get(&sha256(key)).cloned()
    }
}

fn sha256_in_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok().map(|()| hash)
}

/// Compiled `[auth]` table of the kind `api_key`.
pub(super) struct ApiKey {
    header: HeaderName,
    keys: Keys,
    challenge: Challenge,
}

impl ApiKey {
    pub(super) fn new(header: HeaderName, keys: Keys, realm: &str) -> Self {
        // HTTP requires a scheme (RFC 9110 11.6.1), and none is registered for API keys. `ApiKey` is invented.
        let further = format!("header={}", quoted(header.as_str()));
        ApiKey { challenge: Challenge::new("ApiKey", realm, &further), header, keys }
    }

    /// Returns the identity of the client, or the refusal.
    pub(super) fn check(&self, headers: &HeaderMap) -> Verdict<Arc<Identity>> {
        match one(headers, &self.header) {
            Credentials::None => Verdict::Reply(self.challenge.missing("the request has no API key")),
            Credentials::Several => {
                Verdict::Reply(self.challenge.several("there are several fields with an API key"))
            }
            Credentials::One(key) => match self.keys.bearer(key) {
                Some(identity) => Verdict::Continue(identity),
                None => Verdict::Reply(self.challenge.invalid("the API key is unknown")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(key: &str) -> String {
        hex::encode(sha256(key.as_bytes()))
    }

    fn outcome(policy: &ApiKey, fields: &[(&'static str, &str)]) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        match policy.check(&headers) {
            Verdict::Continue(identity) => Ok(identity.name.clone()),
            Verdict::Reply(reply) => Err(reply.status()),
        }
    }

    #[test]
    fn key_identifies_its_owner() {
        let text = format!(
            "# two of one\nshop:{}\nshop:{}\n till : {} \n",
            hex("k1"),
            hex("k2").to_uppercase(),
            hex("k3")
        );
        let keys = Keys::read("keys", &text, None).unwrap();
        let policy = ApiKey::new(HeaderName::from_static("x-api-key"), keys, "r");
        for (key, name) in [("k1", "shop"), ("k2", "shop"), ("k3", "till")] {
            assert_eq!(outcome(&policy, &[("x-api-key", key)]), Ok(name.to_owned()));
        }
        for wrong in ["", "k", "K1", "k11", &hex("k1"), "k1, k2"] {
            assert_eq!(outcome(&policy, &[("x-api-key", wrong)]), Err(401), "{wrong}");
        }
        assert_eq!(outcome(&policy, &[]), Err(401));
        assert_eq!(outcome(&policy, &[("authorization", "k1")]), Err(401));
        assert_eq!(outcome(&policy, &[("x-api-key", "k1"), ("x-api-key", "k1")]), Err(400));
    }

    #[test]
    fn faulty_line_is_reported_with_its_number() {
        let good = hex("k");
        for (text, said) in [
            (String::new(), "'keys' holds no key"),
            (good.clone(), "keys:1: expected `name:hash`"),
            (format!("\n:{good}"), "keys:2: a key needs the name of its holder"),
            ("a:plain-key".to_owned(), "keys:1: expected a name, ':' and the 64 hexadecimal digits"),
            ("plain-key:a".to_owned(), "keys:1: expected a name, ':' and the 64 hexadecimal digits"),
            (format!("{good}:plain-key"), "the 64 hexadecimal digits of a SHA-256, in this order"),
            (format!("a:{}", good.replace(&good[..2], "+1")), "the 64 hexadecimal digits"),
            (format!("a:{}ß", &good[..62]), "the 64 hexadecimal digits"),
            (format!("a:{}", hex("")), "this is the hash of an empty key"),
            (format!("a:{good}\nb:{good}"), "keys:2: this key is defined twice"),
        ] {
            let error = Keys::read("keys", &text, None).err().unwrap_or_default();
            assert!(error.contains(said), "{text}\n-- says {error}\n-- not {said}");
            assert!(!error.contains("plain-key"), "a key that stands there is not shown");
        }
    }
}
