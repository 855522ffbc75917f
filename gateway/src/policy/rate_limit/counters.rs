//! Counters for any number of clients in a fixed amount of memory.
//!
//! The counters are a table of slots (by default 2¹⁸ in 4.25 MiB), in buckets of eight. A client's key is a
//! hash of 64 bits that no client can compute. The key selects one bucket. In the bucket each client has a
//! separate slot, so clients are not counted together. A slot whose window has passed is free for the next
//! client. If all eight clients of a bucket are within their windows, a ninth client evicts the client with the
//! fewest requests, whose count is lost. A flood of addresses therefore costs no memory, and first evicts the
//! clients with the fewest requests. A client with n requests is evicted only after the seven other clients of
//! its bucket have made as many requests each. A client cannot know which clients share its bucket.
//!
//! Counting takes no lock, because a slot's window and count are one atomic word. Only a client without a slot
//! takes the lock of its bucket, so that it cannot get two slots.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::IntCounter;

use crate::config::MAX_RATE_LIMIT;

const WAYS: usize = 8;

/// Number of bits for the count in a slot's word. The other 40 bits are the end of the window in milliseconds,
/// which is enough for 34 years.
const COUNT_BITS: u32 = 24;
const _: () = assert!(MAX_RATE_LIMIT < 1 << COUNT_BITS, "a count would run into the time");

/// Table of counters.
pub struct Counters {
    buckets: Box<[Bucket]>,
    hasher: RandomState,
    start: Instant,
    /// Number of clients that were evicted within their windows.
    evicted: IntCounter,
}

#[derive(Default)]
struct Bucket {
    slots: [Slot; WAYS],
    newcomers: Mutex<()>,
}

#[derive(Default)]
struct Slot {
    /// Key of the client; 0 in a free slot.
    key: AtomicU64,
    word: AtomicU64,
}

/// State of a client in a window, at the time of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// True if the request is within the limit.
    pub allowed: bool,
    /// Number of requests in this window, including the current request if it is allowed.
    pub used: u32,
    /// Milliseconds until the end of the window.
    pub reset_ms: u64,
}

impl Count {
    /// Returns true if the window was checked. The default value is an unchecked window, with no time left.
    pub(super) fn is_known(self) -> bool {
        self.reset_ms > 0
    }
}

/// Limit, window and current time for counting one request.
#[derive(Clone, Copy)]
struct Rule {
    limit: u32,
    window_ms: u64,
    now_ms: u64,
}

impl Counters {
    /// Creates an empty table for `clients` clients. `evicted` counts the clients that are evicted for lack of
    /// room.
    pub fn new(clients: usize, evicted: IntCounter) -> Self {
        Counters {
            buckets: (0..clients.div_ceil(WAYS).max(1)).map(|_| Bucket::default()).collect(),
            hasher: RandomState::new(),
            start: Instant::now(),
            evicted,
        }
    }

    /// Returns true if the table has exactly the size for `clients` clients.
    pub fn has_room_for(&self, clients: usize) -> bool {
        self.buckets.len() == clients.div_ceil(WAYS).max(1)
    }

    /// Returns the size of the table in bytes, which does not depend on the number of clients.
    pub fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// Returns the key under which `of` is counted.
    pub fn key(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of).max(1)
    }

    /// Returns the state of a client without counting. `allowed` is true if the next request would be allowed.
    pub fn peek(&self, key: u64, limit: u32, window_ms: u64, now: Instant) -> Count {
        let now_ms = self.clock(now);
        let found = self.bucket(key).find(key).map(|slot| slot.word.load(Ordering::Acquire));
        match found.filter(|word| !is_over(*word, now_ms)) {
            None => Count { allowed: true, used: 0, reset_ms: window_ms },
            Some(word) => Count {
                allowed: count_of(word) < limit,
                used: count_of(word),
                reset_ms: end_of(word) - now_ms,
            },
        }
    }

    /// Counts a request, unless `limit` requests have been counted in this window already.
    pub fn count(&self, key: u64, limit: u32, window_ms: u64, now: Instant) -> Count {
        let rule = Rule { limit, window_ms, now_ms: self.clock(now) };
        let bucket = self.bucket(key);
        loop {
            if let Some(count) = bucket.find(key).and_then(|slot| slot.count(key, rule)) {
                return count;
            }
            if bucket.welcome(key, rule, &self.evicted) {
                return Count { allowed: true, used: 1, reset_ms: window_ms };
            }
        }
    }

    /// Takes back a request that was counted at `now` with the result `count`. Returns the client's new state.
    pub fn give_back(&self, key: u64, count: Count, now: Instant) -> Count {
        let end = self.clock(now).saturating_add(count.reset_ms);
        if let Some(slot) = self.bucket(key).find(key) {
            slot.give_back(key, end);
        }
        Count { used: count.used.saturating_sub(1), ..count }
    }

    fn clock(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    fn bucket(&self, key: u64) -> &Bucket {
        &self.buckets[key as usize % self.buckets.len()]
    }
}

impl Bucket {
    fn find(&self, key: u64) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.key.load(Ordering::Acquire) == key)
    }

    /// Gives a client a slot and counts its first request. Returns false if another thread has given the client
    /// a slot.
    fn welcome(&self, key: u64, rule: Rule, evicted: &IntCounter) -> bool {
        let _one_at_a_time = self.newcomers.lock();
        while self.find(key).is_none() {
            let words = self.slots.iter().map(|slot| (slot, slot.word.load(Ordering::Acquire)));
            let least =
                words.min_by_key(|(_, word)| if is_over(*word, rule.now_ms) { 0 } else { count_of(*word) });
            let Some((slot, word)) = least else { return false };
            // From here on, no thread finds the slot. But a thread that found it earlier may have counted a
            // request. Then the word has changed, and the slot's client keeps the slot.
            let owner = slot.key.swap(0, Ordering::AcqRel);
            let fresh = rule.fresh_word();
            if slot.word.compare_exchange(word, fresh, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                slot.key.store(key, Ordering::Release);
                if !is_over(word, rule.now_ms) && count_of(word) > 0 {
                    evicted.inc();
                }
                return true;
            }
            slot.key.store(owner, Ordering::Release);
        }
        false
    }
}

impl Slot {
    /// Counts a request of the client `key`. Returns `None` if another client now has the slot.
    fn count(&self, key: u64, rule: Rule) -> Option<Count> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if self.key.load(Ordering::Acquire) != key {
                return None;
            }
            let over = is_over(word, rule.now_ms);
            let used = count_of(word);
            if !over && used >= rule.limit {
                return Some(Count { allowed: false, used, reset_ms: end_of(word) - rule.now_ms });
            }
            let next = if over { rule.fresh_word() } else { word + 1 };
            match self.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let reset_ms = end_of(next).saturating_sub(rule.now_ms);
                    return Some(Count { allowed: true, used: count_of(next), reset_ms });
                }
                Err(current) => word = current,
            }
        }
    }

    /// Takes back one request of the client `key`, if the slot's window still is the window that ends at `end`.
    fn give_back(&self, key: u64, end: u64) {
        let mut word = self.word.load(Ordering::Acquire);
        while self.key.load(Ordering::Acquire) == key && end_of(word) == end && count_of(word) > 0 {
            match self.word.compare_exchange(word, word - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }
}

impl Rule {
    /// Returns the word of a window that opens now and has one request.
    fn fresh_word(self) -> u64 {
        (self.now_ms.saturating_add(self.window_ms) << COUNT_BITS) | 1
    }
}

fn end_of(word: u64) -> u64 {
    word >> COUNT_BITS
}

fn count_of(word: u64) -> u32 {
    (word & ((1 << COUNT_BITS) - 1)) as u32
}

fn is_over(word: u64, now_ms: u64) -> bool {
    end_of(word) <= now_ms
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const WINDOW_MS: u64 = 60_000;

    fn counters(clients: usize) -> Counters {
        Counters::new(clients, IntCounter::new("evicted", "evicted").unwrap())
    }

    #[test]
    fn parallel_threads_count_exactly_to_the_limit() {
        let counters = counters(1 << 18);
        let now = Instant::now();
        for key in 1..=200 {
            let allowed: usize = thread::scope(|scope| {
                let count = || (0..100).filter(|_| counters.count(key, 150, WINDOW_MS, now).allowed).count();
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(allowed, 150, "key {key}");
        }
    }

    #[test]
    fn request_is_taken_back_only_within_its_window() {
        let counters = counters(8);
        let start = Instant::now();
        let first = counters.count(1, 2, 1_000, start);
        counters.count(1, 2, 1_000, start);
        assert!(!counters.peek(1, 2, 1_000, start).allowed);
        assert_eq!(counters.give_back(1, first, start).used, 0);
        assert_eq!(counters.peek(1, 2, 1_000, start).used, 1);
        assert!(counters.count(1, 2, 1_000, start).allowed);

        let later = start + std::time::Duration::from_secs(2);
        counters.count(1, 2, 1_000, later);
        counters.give_back(1, first, start);
        assert_eq!(counters.peek(1, 2, 1_000, later).used, 1, "that window has passed");
        counters.give_back(77, first, start);
        assert_eq!(counters.peek(77, 2, 1_000, later).used, 0, "nobody has it");
    }

    #[test]
    fn million_clients_do_not_evict_the_busy_ones() {
        let counters = counters(1 << 18);
        let now = Instant::now();
        let key = |n: u32| counters.key(n);
        let busy: Vec<u64> = (0..100).map(key).collect();
        for key in &busy {
            for _ in 0..50 {
                assert!(counters.count(*key, 50, WINDOW_MS, now).allowed);
            }
        }
        for n in 1_000..1_001_000 {
            assert!(counters.count(key(n), 50, WINDOW_MS, now).allowed);
        }
        for key in &busy {
            assert!(
                !counters.count(*key, 50, WINDOW_MS, now).allowed,
                "a flood does not free who used up its share"
            );
        }
        let evicted = counters.evicted.get();
        assert!(evicted >= 1_000_100 - (1 << 18), "{evicted}: each that there was no room for is counted");
        assert_eq!(counters.bytes(), 17 << 18, "whatever comes");
    }

    #[test]
    fn clients_that_fit_are_counted_separately() {
        let counters = counters(1 << 18);
        let now = Instant::now();
        let keys: Vec<u64> = (0..20_000_u32).map(|n| counters.key(n)).collect();
        for _ in 0..3 {
            for key in &keys {
                assert!(counters.count(*key, 3, WINDOW_MS, now).allowed);
            }
        }
        let refused = keys.iter().filter(|key| !counters.count(**key, 3, WINDOW_MS, now).allowed).count();
        assert_eq!(refused, keys.len());
        assert_eq!(counters.evicted.get(), 0);
    }
}
