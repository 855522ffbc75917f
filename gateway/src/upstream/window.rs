//! Counts of events and marked events over the last seconds. A circuit counts requests and marks failures. A retry
//! budget counts attempts and marks retries. Counting takes no lock, because one number holds both counts of a second.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number of seconds for which counts are kept. A sum covers at most one second less, because the slot of the oldest
/// second is the next to be overwritten.
const SLOTS: usize = 64;

/// Counts of the last minute. Each slot holds the two counts of a second, and the number of that second.
pub(super) struct Window {
    slots: [AtomicU64; SLOTS],
}

/// Content of a slot: 20 bits for the second (its number repeats after 12 days), and 22 bits for each count.
#[derive(Clone, Copy)]
struct Slot {
    second: u64,
    all: u64,
    marked: u64,
}

const COUNT: u64 = (1 << 22) - 1;
const SECOND: u64 = (1 << 20) - 1;

impl Slot {
    fn unpack(number: u64) -> Self {
        Slot { second: number >> 44, all: number >> 22 & COUNT, marked: number & COUNT }
    }

    fn pack(self) -> u64 {
        self.second << 44 | self.all.min(COUNT) << 22 | self.marked.min(COUNT)
    }
}

impl Window {
    pub(super) fn new() -> Self {
        Window { slots: [const { AtomicU64::new(0) }; SLOTS] }
    }

    /// Counts one event at the time `now` in milliseconds. The event is also counted as marked if `marked` is true.
    pub(super) fn add(&self, now: u64, marked: bool) {
        let second = (now / 1000) & SECOND;
        let counted = |number| {
            let slot = Slot::unpack(number);
            let slot = if slot.second == second { slot } else { Slot { second, all: 0, marked: 0 } };
            Some(Slot { all: slot.all + 1, marked: slot.marked + u64::from(marked), ..slot }.pack())
        };
        let slot = &self.slots[second as usize % SLOTS];
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    /// Returns the number of events in the last `secs` seconds, and the number of marked events among them.
    pub(super) fn sum(&self, now: u64, secs: u64) -> (u64, u64) {
        let second = now / 1000;
        let seconds = (0..secs.min(SLOTS as u64 - 1)).map(|back| second.wrapping_sub(back) & SECOND);
        let slots = seconds.map(|second| {
            let slot = Slot::unpack(self.slots[second as usize % SLOTS].load(Ordering::Relaxed));
            if slot.second == second { (slot.all, slot.marked) } else { (0, 0) }
        });
        slots.fold((0, 0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1))
    }

    pub(super) fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_counts_only_the_last_seconds() {
        let window = Window::new();
        for second in 10..20 {
            window.add(second * 1000, false);
            window.add(second * 1000 + 999, second % 2 == 0);
        }
        assert_eq!(window.sum(19_500, 10), (20, 5));
        assert_eq!(window.sum(19_500, 1), (2, 0));
        assert_eq!(window.sum(24_500, 10), (10, 2), "what is older has gone");
        assert_eq!(window.sum(90_000, 60), (0, 0));
        window.add(10_000 + 64_000, true);
        assert_eq!(window.sum(74_000, 10), (1, 1), "a slot that is used again begins at nothing");
        window.clear();
        assert_eq!(window.sum(74_000, 10), (0, 0));
    }

    #[test]
    fn concurrent_adds_are_all_counted() {
        let window = Window::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let window = &window;
                scope.spawn(move || (0..1000).for_each(|_| window.add(5000, thread == 0)));
            }
        });
        assert_eq!(window.sum(5000, 1), (4000, 1000));
    }
}
