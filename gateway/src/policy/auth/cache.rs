//! Cache of credentials that were proved in the last minutes. Clients send credentials with each request, and a
//! check costs tens of milliseconds for a password and tens of microseconds for a token (bench `auth`). The key
//! of an entry is a keyed hash of the credentials. The table never grows, because a new entry replaces the old
//! entry in its slot. Readers take no lock.
//!
//! Each use prolongs an entry. The password of an active client is therefore not hashed again while the
//! processors are busy with the guesses of an attacker. The maximum lifetime limits such use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

use crate::util::random;

/// Number of slots.
const SLOTS: usize = 4096;
/// Lifetime of an entry after its last use.
const UNUSED: Duration = Duration::from_secs(60);
/// Maximum lifetime of an entry, no matter how often it is used.
const LONGEST: Duration = Duration::from_secs(600);

/// Keyed hash of credentials. Without the key, the hash reveals nothing about the credentials.
pub(super) type Digest = [u8; 32];

/// Table of proofs, by the hash of the credentials.
pub(super) struct Cache<T> {
    key: PKey<Private>,
    slots: Box<[ArcSwapOption<CacheEntry<T>>]>,
}

struct CacheEntry<T> {
    digest: Digest,
    made: Instant,
    /// Time of the last use, in whole seconds after `made`: the value is written at most once a second,
    /// although many processors use the entry.
    used: AtomicU32,
    proved: T,
}

impl<T: Clone> Cache<T> {
    /// Creates an empty cache with a random key.
    ///
    /// # Errors
    /// Returns an error if the system has no random bytes, or OpenSSL cannot make a key of them.
    pub(super) fn new() -> Result<Self, String> {
        let secret = random::secret().map_err(|error| error.to_string())?;
        let key = PKey::hmac(&secret)
            .map_err(|error| format!("OpenSSL cannot make a key from a secret: {error}"))?;
        let slots = (0..SLOTS).map(|_| ArcSwapOption::empty()).collect();
        Ok(Cache { key, slots })
    }

    /// Returns the hash of the credentials. If OpenSSL cannot compute it, returns `None`, and nothing is
    /// cached.
    pub(super) fn digest(&self, credentials: &[u8]) -> Option<Digest> {
        let mut digest = Digest::default();
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).ok()?;
        let length = signer.sign_oneshot(&mut digest, credentials).ok()?;
        (length == digest.len()).then_some(digest)
    }

    /// Returns the cached result for these credentials; `None` if there is no result or it is too old.
    pub(super) fn find(&self, digest: &Digest, now: Instant) -> Option<T> {
        let entry = self.place(digest).load();
        let entry = entry.as_ref().filter(|entry| openssl::memcmp::eq(&entry.digest, digest))?;
        entry.is_used(now).then(|| entry.proved.clone())
    }

    /// Stores a result under the hash of its credentials.
    pub(super) fn keep(&self, digest: Digest, proved: T, now: Instant) {
        self.place(&digest).store(Some(Arc::new(CacheEntry {
            digest,
            made: now,
            used: AtomicU32::new(0),
            proved,
        })));
    }

    fn place(&self, digest: &Digest) -> &ArcSwapOption<CacheEntry<T>> {
        // The key of the hash is secret, so a client cannot choose which slot it overwrites.
        &self.slots[usize::from(u16::from_le_bytes([digest[0], digest[1]])) % SLOTS]
    }
}

impl<T> CacheEntry<T> {
    /// Returns true if the entry is still valid, and records the use.
    fn is_used(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.made);
        let used = self.used.load(Ordering::Relaxed);
        let holds = age < LONGEST && age < Duration::from_secs(used.into()) + UNUSED;
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        if holds && seconds > used {
            self.used.fetch_max(seconds, Ordering::Relaxed);
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_found_until_it_is_unused_too_long() {
        let cache = Cache::new().unwrap();
        let alice = Arc::new("alice");
        let (right, wrong) = (cache.digest(b"alice:a").unwrap(), cache.digest(b"alice:b").unwrap());
        let now = Instant::now();
        assert!(cache.find(&right, now).is_none());
        cache.keep(right, alice.clone(), now);
        assert!(cache.find(&wrong, now).is_none());
        assert!(cache.find(&right, now + UNUSED).is_none());
        assert_eq!(cache.find(&right, now + UNUSED / 2), Some(alice));
        // Two digests that share a slot are not confused.
        let mut beside = right;
        beside[31] ^= 1;
        assert!(cache.find(&beside, now).is_none());
    }

    #[test]
    fn use_prolongs_an_entry_up_to_the_maximum_lifetime() {
        let cache = Cache::new().unwrap();
        let digest = cache.digest(b"alice:a").unwrap();
        let now = Instant::now();
        let holds_after = |after: Duration| cache.find(&digest, now + after).is_some();
        cache.keep(digest, (), now);
        for step in 1..12 {
            assert!(holds_after(UNUSED * 9 / 10 * step), "{step}");
        }
        assert!(holds_after(LONGEST - Duration::from_millis(1)));
        assert!(!holds_after(LONGEST), "it is proved anew");
        cache.keep(digest, (), now);
        assert!(holds_after(UNUSED / 2));
        assert!(holds_after(Duration::ZERO), "another thread may be behind");
        assert!(holds_after(UNUSED + UNUSED / 2 - Duration::from_millis(1)), "and takes nothing away");
        cache.keep(digest, (), now);
        assert!(holds_after(UNUSED / 2));
        assert!(!holds_after(UNUSED + UNUSED / 2), "nobody has used it for so long");
    }

    #[test]
    fn each_cache_has_another_key() {
        let new = || Cache::<()>::new().unwrap();
        let [one, other] = [new(), new()].map(|cache| cache.digest(b"a:b"));
        assert_ne!(one, other);
    }
}
