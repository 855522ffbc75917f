//! Cookies that a client stores for the gateway but cannot forge, because the value contains a signature
//! (HMAC-SHA-256) of the cookie's purpose and content.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use pingora::Result;
use pingora::http::ResponseHeader;

use super::cookies;
use crate::util::random::NoRandomBytes;
use crate::util::{cache_control, random};

/// Time for which a client stores the cookie, in seconds: 30 days.
const MAX_AGE_SECS: u32 = 30 * 24 * 60 * 60;

/// Key that signs cookies.
pub struct CookieKey(Vec<u8>);

impl CookieKey {
    /// Reads the key from an environment variable. If the variable is empty or not set, creates a random key.
    ///
    /// # Errors
    /// Returns an error if a random key is needed but the system has no random bytes.
    pub fn from_variable(name: &str) -> std::result::Result<Self, NoRandomBytes> {
        CookieKey::new(std::env::var(name).ok().filter(|secret| !secret.trim().is_empty()))
    }

    /// Creates a key from `secret`. Without a secret, creates a random key that lasts as long as the process.
    ///
    /// # Errors
    /// Returns an error if there is no `secret` but the system has no random bytes.
    pub fn new(secret: Option<String>) -> std::result::Result<Self, NoRandomBytes> {
        Ok(CookieKey(match secret {
            Some(secret) => secret.into_bytes(),
            None => random::secret()?.to_vec(),
        }))
    }

    fn sign(&self, purpose: &str, value: &str) -> std::result::Result<String, ErrorStack> {
        let key = PKey::hmac(&self.0)?;
        let mut signer = Signer::new(MessageDigest::sha256(), &key)?;
        // A purpose has no line break, so the first line break always separates purpose and value.
        signer.update(format!("{purpose}\n{value}").as_bytes())?;
        let signature = signer.sign_to_vec()?;
        // A signature of 128 bits cannot be guessed.
        Ok(hex::encode(&signature[..16]))
    }
}

/// Definition of a cookie: its name, its purpose, and the key that signs it.
pub struct SignedCookie {
    name: String,
    purpose: String,
    key: Arc<CookieKey>,
}

impl SignedCookie {
    /// Defines a cookie called `name`. A cookie that was signed for another purpose than `purpose` is ignored.
    pub fn new(name: &str, purpose: String, key: Arc<CookieKey>) -> Self {
        SignedCookie { name: name.to_owned(), purpose, key }
    }

    /// Returns the content of the client's cookie; `None` if there is no cookie that the gateway has signed.
    pub fn read<'h>(&'h self, headers: &'h HeaderMap) -> Option<&'h str> {
        cookies(headers, &self.name).find_map(|signed| {
            let (value, signature) = signed.rsplit_once('.')?;
            let right = self.key.sign(&self.purpose, value).ok()?;
            let equal =
                right.len() == signature.len() && openssl::memcmp::eq(right.as_bytes(), signature.as_bytes());
            equal.then_some(value)
        })
    }

    /// Sets a cookie with the content `value` on the response. A client that gets the cookie over HTTPS sends
    /// it over HTTPS only. The response becomes private, because a shared cache would give the cookie to other
    /// clients, which would then all use the same backend.
    ///
    /// # Errors
    /// Returns an error if Pingora refuses the field, which does not happen for this one.
    pub fn on_response(&self, value: &str, is_https: bool, response: &mut ResponseHeader) -> Result<()> {
        let Ok(signature) = self.key.sign(&self.purpose, value) else { return Ok(()) };
        let (name, secure) = (&self.name, if is_https { "; Secure" } else { "" });
        let cookie = format!(
            "{name}={value}.{signature}; Path=/; Max-Age={MAX_AGE_SECS}; HttpOnly; SameSite=Lax{secure}"
        );
        match HeaderValue::from_str(&cookie) {
            Ok(cookie) => {
                response.append_header(header::SET_COOKIE, cookie)?;
                cache_control::keep_private(response)
            }
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(secret: Option<&str>, purpose: &str) -> SignedCookie {
        SignedCookie::new(
            "ab",
            purpose.to_owned(),
            Arc::new(CookieKey::new(secret.map(str::to_owned)).unwrap()),
        )
    }

    /// Returns the Cookie field that a browser would send after a response with this cookie.
    fn given(cookie: &SignedCookie, value: &str) -> String {
        let mut response = ResponseHeader::build(200, None).unwrap();
        cookie.on_response(value, false, &mut response).unwrap();
        assert_eq!(response.headers["cache-control"], "private");
        let set = response.headers["set-cookie"].to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    }

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    #[test]
    fn signed_value_is_read_again() {
        let cookie = cookie(Some("secret"), "split a.example");
        let given = given(&cookie, "1234");
        assert_eq!(cookie.read(&headers(&given)), Some("1234"));
        assert_eq!(cookie.read(&headers(&format!("x=1; {given}; y=2"))), Some("1234"));
        assert_eq!(cookie.read(&headers(&format!("ab=forged.00; {given}"))), Some("1234"));
        assert_eq!(self::cookie(Some("secret"), "split a.example").read(&headers(&given)), Some("1234"));
    }

    #[test]
    fn key_without_a_secret_is_random_in_every_byte() {
        let key = || CookieKey::new(None).unwrap().0;
        assert_eq!(key().len(), random::SECRET_BYTES);
        // Keys made at the same moment differ in every byte. A key derived from a clock would have equal bytes.
        let keys: Vec<Vec<u8>> = (0..32).map(|_| key()).collect();
        for at in 0..random::SECRET_BYTES {
            assert!(keys.iter().any(|key| key[at] != keys[0][at]), "byte {at} of every key is the same");
        }
    }

    #[test]
    fn cookie_with_a_wrong_signature_is_ignored() {
        let cookie = cookie(Some("secret"), "split a.example");
        let given = given(&cookie, "1234");
        for other in [self::cookie(Some("secret"), "split b.example"), self::cookie(None, "split a.example")]
        {
            assert_eq!(other.read(&headers(&given)), None);
        }
        for forged in [&given.replace("1234", "1235"), "ab=1234", "ab=", "ab=1234.", "ab", "abc=1234.00"] {
            assert_eq!(cookie.read(&headers(forged)), None, "{forged}");
        }
        assert_eq!(cookie.read(&HeaderMap::new()), None);
    }
}
