//! What has just been proved, for a short while: a password costs tens of milliseconds of computing, a token's signature
//! tens of microseconds (bench `auth`), and clients send them with each request. Kept under a keyed hash of the
//! credentials, in a table that never grows: who comes into an occupied place takes it. Read without a lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

/// For so many at once.
const PLACES: usize = 4096;
/// For so long.
const KEPT: Duration = Duration::from_secs(60);

/// A keyed hash of credentials: says nothing about them to whoever has not the key.
pub(super) type Digest = [u8; 32];

/// What has just been proved.
pub(super) struct Cache<T> {
    key: PKey<Private>,
    places: Box<[ArcSwapOption<Entry<T>>]>,
}

struct Entry<T> {
    digest: Digest,
    since: Instant,
    proved: T,
}

impl<T: Clone> Cache<T> {
    /// An empty one, with a key that nobody knows.
    ///
    /// # Errors
    /// Where OpenSSL has no random numbers.
    pub(super) fn new() -> Result<Self, ErrorStack> {
        let mut key = [0; 32];
        openssl::rand::rand_bytes(&mut key)?;
        let places = (0..PLACES).map(|_| ArcSwapOption::empty()).collect();
        Ok(Cache { key: PKey::hmac(&key)?, places })
    }

    /// The hash of these credentials; `None` where OpenSSL makes none, and nothing is kept.
    pub(super) fn digest(&self, credentials: &[u8]) -> Option<Digest> {
        let mut digest = Digest::default();
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).ok()?;
        let length = signer.sign_oneshot(&mut digest, credentials).ok()?;
        (length == digest.len()).then_some(digest)
    }

    /// What these credentials have proved a short while ago.
    pub(super) fn find(&self, digest: &Digest, now: Instant) -> Option<T> {
        let entry = self.place(digest).load();
        let entry = entry.as_ref().filter(|entry| now.saturating_duration_since(entry.since) < KEPT)?;
        openssl::memcmp::eq(&entry.digest, digest).then(|| entry.proved.clone())
    }

    /// Keeps what has been proved.
    pub(super) fn keep(&self, digest: Digest, proved: T, now: Instant) {
        self.place(&digest).store(Some(Arc::new(Entry { digest, since: now, proved })));
    }

    fn place(&self, digest: &Digest) -> &ArcSwapOption<Entry<T>> {
        // The key is secret, so nobody can choose whose place to take.
        &self.places[usize::from(u16::from_le_bytes([digest[0], digest[1]])) % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proved_holds_for_a_while() {
        let cache = Cache::new().unwrap();
        let alice = Arc::new("alice");
        let (right, wrong) = (cache.digest(b"alice:a").unwrap(), cache.digest(b"alice:b").unwrap());
        let now = Instant::now();
        assert!(cache.find(&right, now).is_none());
        cache.keep(right, alice.clone(), now);
        assert_eq!(cache.find(&right, now + KEPT / 2), Some(alice));
        assert!(cache.find(&wrong, now).is_none());
        assert!(cache.find(&right, now + KEPT).is_none());
        // Two that share a place are not taken for one another.
        let mut beside = right;
        beside[31] ^= 1;
        assert!(cache.find(&beside, now).is_none());
    }

    #[test]
    fn each_has_a_key_of_its_own() {
        let new = || Cache::<()>::new().unwrap();
        let [one, other] = [new(), new()].map(|cache| cache.digest(b"a:b"));
        assert_ne!(one, other);
    }
}
