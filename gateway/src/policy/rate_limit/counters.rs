//! Counters for any number of clients in a fixed amount of memory.
//!
//! A table of 2¹⁸ slots (4 MiB), in buckets of eight. A client's key (64 bits of a hash that nobody outside
//! can compute) belongs into one bucket; within it, it has a slot of its own, so clients are never counted
//! together. A slot whose window has passed is free for the next client. Only when all eight clients of a
//! bucket are within their windows does a ninth take a slot that is in use, the one with the fewest requests:
//! that client's count starts anew. So a flood of addresses costs no memory, and lets go first of those that
//! asked least.
//!
//! Counting takes no lock: a slot's window and count are one atomic word. A client's first request in a while
//! takes the lock of its bucket, one of 2¹⁵, so that the client cannot get two slots.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::MAX_RATE_LIMIT;

const BUCKETS: usize = 1 << 15;
const WAYS: usize = 8;

/// A word holds when its window ends, in milliseconds (40 bits, 34 years), and the count (24 bits).
const COUNT_BITS: u32 = 24;
const _: () = assert!(MAX_RATE_LIMIT < 1 << COUNT_BITS, "a count would run into the time");

/// The table.
pub struct Counters {
    buckets: Box<[Bucket]>,
    hasher: RandomState,
    start: Instant,
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

/// The outcome of one count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Whether the request is within the limit.
    pub allowed: bool,
    /// Requests in this window, this one included where it is allowed.
    pub used: u32,
    /// Milliseconds until the window has passed.
    pub reset_ms: u64,
}

/// What holds for one count.
#[derive(Clone, Copy)]
struct Rule {
    limit: u32,
    window_ms: u64,
    now_ms: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters::new()
    }
}

impl Counters {
    /// An empty table.
    pub fn new() -> Self {
        Counters {
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }

    /// The key of a client within a scope.
    pub fn key(&self, scope: &str, client: IpAddr) -> u64 {
        self.hasher.hash_one((scope, client)).max(1)
    }

    /// Counts a request, unless `limit` of them have been counted in this window already.
    pub fn count(&self, key: u64, limit: u32, window_ms: u64, now: Instant) -> Count {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        let rule = Rule { limit, window_ms, now_ms: u64::try_from(elapsed).unwrap_or(u64::MAX) };
        let bucket = &self.buckets[key as usize % BUCKETS];
        loop {
            if let Some(count) = bucket.find(key).and_then(|slot| slot.count(key, rule)) {
                return count;
            }
            if bucket.welcome(key, rule) {
                return Count { allowed: true, used: 1, reset_ms: window_ms };
            }
        }
    }
}

impl Bucket {
    fn find(&self, key: u64) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.key.load(Ordering::Acquire) == key)
    }

    /// Gives a client a slot, with its first request counted; false where it has one by now.
    fn welcome(&self, key: u64, rule: Rule) -> bool {
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

    #[test]
    fn threads_together_count_exactly_to_the_limit() {
        let counters = Counters::new();
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
    fn a_million_clients_fit_and_the_busy_ones_are_remembered() {
        let counters = Counters::new();
        let now = Instant::now();
        let key = |n: u32| counters.key("", IpAddr::V4(n.into()));
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
        let bytes = counters.buckets.len() * size_of::<Bucket>();
        assert!(bytes <= 5 << 20, "the table has {bytes} bytes, whatever comes");
    }

    #[test]
    fn clients_that_fit_are_counted_each_for_itself() {
        let counters = Counters::new();
        let now = Instant::now();
        let keys: Vec<u64> = (0..20_000_u32).map(|n| counters.key("", IpAddr::V4(n.into()))).collect();
        for _ in 0..3 {
            for key in &keys {
                assert!(counters.count(*key, 3, WINDOW_MS, now).allowed);
            }
        }
        let refused = keys.iter().filter(|key| !counters.count(**key, 3, WINDOW_MS, now).allowed).count();
        assert_eq!(refused, keys.len());
    }
}
