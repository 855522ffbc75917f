//! Counters for any number of clients in a fixed amount of memory.
//!
//! A table of slots (by default 2¹⁸ in 4.25 MiB), in buckets of eight. A client's key (64 bits of a hash that
//! nobody outside can compute) belongs into one bucket; within it, it has a slot of its own, so clients are never
//! counted together. A slot whose window has passed is free for the next client. Only when all eight clients of a
//! bucket are within their windows does a ninth take a slot that is in use, the one with the fewest requests:
//! that client's count starts anew. So a flood of addresses costs no memory, and lets go first of those that
//! asked least; to have itself forgotten, a client that has asked n times needs seven others in its bucket that
//! have each asked as often, and cannot know which those are.
//!
//! Counting takes no lock: a slot's window and count are one atomic word. A client's first request in a while
//! takes the lock of its bucket, so that the client cannot get two slots.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::IntCounter;

use crate::config::MAX_RATE_LIMIT;

const WAYS: usize = 8;

/// A word holds when its window ends, in milliseconds (40 bits, 34 years), and the count (24 bits).
const COUNT_BITS: u32 = 24;
const _: () = assert!(MAX_RATE_LIMIT < 1 << COUNT_BITS, "a count would run into the time");

/// The table.
pub struct Counters {
    buckets: Box<[Bucket]>,
    hasher: RandomState,
    start: Instant,
    /// Clients that were forgotten within their windows.
    evicted: IntCounter,
}

#[derive(Default)]
struct Bucket {
    slots: [Slot; WAYS],
    newcomers: Mutex<()>,
}

#[derive(Default)]
struct Slot {
    /// 0 where nobody has it.
    key: AtomicU64,
    word: AtomicU64,
}

/// How a client stands in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Whether the request is within the limit.
    pub allowed: bool,
    /// Requests in this window, this one included where it is allowed.
    pub used: u32,
    /// Milliseconds until the window has passed.
    pub reset_ms: u64,
}

impl Count {
    /// Whether anybody has asked: a window that is asked has always something left of its time.
    pub(super) fn is_known(self) -> bool {
        self.reset_ms > 0
    }
}

/// What holds for one count.
#[derive(Clone, Copy)]
struct Rule {
    limit: u32,
    window_ms: u64,
    now_ms: u64,
}

impl Counters {
    /// An empty table with room for so many clients; `evicted` counts those that it had no room for.
    pub fn new(clients: usize, evicted: IntCounter) -> Self {
        Counters {
            buckets: (0..clients.div_ceil(WAYS).max(1)).map(|_| Bucket::default()).collect(),
            hasher: RandomState::new(),
            start: Instant::now(),
            evicted,
        }
    }

    /// Whether it is as large as one for so many clients.
    pub fn has_room_for(&self, clients: usize) -> bool {
        self.buckets.len() == clients.div_ceil(WAYS).max(1)
    }

    /// How many bytes it takes, whoever comes.
    pub fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// The key of whatever is counted for itself.
    pub fn key(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of).max(1)
    }

    /// How a client stands, without counting anything.
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

    /// Counts a request, unless `limit` of them have been counted in this window already.
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

    /// Takes back what `count` has counted at `now`, and tells how the client stands then.
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

    /// Gives a client a slot, with its first request counted; false where it has one by now.
    fn welcome(&self, key: u64, rule: Rule, evicted: &IntCounter) -> bool {
        let _one_at_a_time = self.newcomers.lock();
        while self.find(key).is_none() {
            let words = self.slots.iter().map(|slot| (slot, slot.word.load(Ordering::Acquire)));
            let least =
                words.min_by_key(|(_, word)| if is_over(*word, rule.now_ms) { 0 } else { count_of(*word) });
            let Some((slot, word)) = least else { return false };
            // Nobody finds the slot any more. Whoever has found it before may have counted since: then its
            // word has changed, and the slot stays theirs.
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
    /// Counts for `key`; `None` where the slot is no longer its.
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

    /// Counts one less for `key`, as long as the window is still the one that ends at `end`.
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
    /// A window that opens now, with one request in it.
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
    fn threads_together_count_exactly_to_the_limit() {
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
    fn what_is_given_back_can_be_counted_again_and_only_in_its_window() {
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
    fn a_million_clients_fit_and_the_busy_ones_are_remembered() {
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
    fn clients_that_fit_are_counted_each_for_itself() {
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
