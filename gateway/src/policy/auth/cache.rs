//! What has just been proved, for a short while: a password costs tens of milliseconds of computing, a token's signature
//! tens of microseconds (bench `auth`), and clients send them with each request. Kept under a keyed hash of the
//! credentials, in a table that never grows: who comes into an occupied place takes it. Read without a lock.
//!
//! A proof that is used holds on, so that somebody who is at work need not be checked in the middle of it, while others
//! guess and the processors are busy; but not for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

use crate::util::random;

/// For so many at once.
const PLACES: usize = 4096;
/// For so long after it was used last.
const UNUSED: Duration = Duration::from_secs(60);
/// And for so long at the most.
const LONGEST: Duration = Duration::from_secs(600);

/// A keyed hash of credentials: says nothing about them to whoever has not the key.
pub(super) type Digest = [u8; 32];

/// What has just been proved.
pub(super) struct Cache<T> {
    key: PKey<Private>,
    places: Box<[ArcSwapOption<Entry<T>>]>,
}

struct Entry<T> {
    digest: Digest,
    made: Instant,
    /// When it was used last: so many whole seconds after it was made. Written once a second at the most, however many
    /// processors read it.
    used: AtomicU32,
    proved: T,
}

impl<T: Clone> Cache<T> {
    /// An empty one, with a key that nobody knows.
    ///
    /// # Errors
    /// Where the system has no random bytes, or OpenSSL takes none for a key.
    pub(super) fn new() -> Result<Self, String> {
        let secret = random::secret().map_err(|error| error.to_string())?;
        let key =
            PKey::hmac(&secret).map_err(|error| format!("OpenSSL makes no key of a secret: {error}"))?;
        let places = (0..PLACES).map(|_| ArcSwapOption::empty()).collect();
        Ok(Cache { key, places })
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
        let entry = entry.as_ref().filter(|entry| openssl::memcmp::eq(&entry.digest, digest))?;
        entry.is_used(now).then(|| entry.proved.clone())
    }

    /// Keeps what has been proved.
    pub(super) fn keep(&self, digest: Digest, proved: T, now: Instant) {
        self.place(&digest).store(Some(Arc::new(Entry {
            digest,
            made: now,
            used: AtomicU32::new(0),
            proved,
        })));
    }

    fn place(&self, digest: &Digest) -> &ArcSwapOption<Entry<T>> {
        // The key is secret, so nobody can choose whose place to take.
        &self.places[usize::from(u16::from_le_bytes([digest[0], digest[1]])) % PLACES]
    }
}

impl<T> Entry<T> {
    /// Whether it holds, and so holds on.
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
    fn what_was_proved_holds_for_a_while() {
        let cache = Cache::new().unwrap();
        let alice = Arc::new("alice");
        let (right, wrong) = (cache.digest(b"alice:a").unwrap(), cache.digest(b"alice:b").unwrap());
        let now = Instant::now();
        assert!(cache.find(&right, now).is_none());
        cache.keep(right, alice.clone(), now);
        assert!(cache.find(&wrong, now).is_none());
        assert!(cache.find(&right, now + UNUSED).is_none());
        assert_eq!(cache.find(&right, now + UNUSED / 2), Some(alice));
        // Two that share a place are not taken for one another.
        let mut beside = right;
        beside[31] ^= 1;
        assert!(cache.find(&beside, now).is_none());
    }

    #[test]
    fn what_is_used_holds_on_and_not_for_ever() {
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
    fn each_has_a_key_of_its_own() {
        let new = || Cache::<()>::new().unwrap();
        let [one, other] = [new(), new()].map(|cache| cache.digest(b"a:b"));
        assert_ne!(one, other);
    }
}
