//! Which tag's pool gets a request, where a virtual host shares its requests between tags.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Pool;
use crate::telemetry::handles::{Lazy, TagMetrics};

/// A place among all requests, from 0 to 9 999: whoever has the same draw gets the same tag, as long as the
/// shares are the same. Where a share grows, the draws that it had keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitBucket(u16);

impl SplitBucket {
    const ALL: u16 = 10_000;

    /// The draw with this number, if it is one.
    pub fn new(number: u16) -> Option<Self> {
        (number < SplitBucket::ALL).then_some(SplitBucket(number))
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// A tag's share of the requests.
pub struct WeightedPool {
    /// The tag.
    pub tag: String,
    /// The backends that bear it.
    pub pool: Arc<Pool>,
    /// Its share.
    pub percent: u8,
    /// Whether it has that only by a rollout, which may go back at any moment.
    pub provisional: bool,
    /// Counts its requests, so that tags can be compared; `None` where there is nothing to compare.
    pub metrics: Option<Lazy<TagMetrics>>,
}

/// The tags between which requests are shared. There is always one, and most of the time no other.
pub struct TrafficSplit {
    first: WeightedPool,
    others: Vec<WeightedPool>,
    turn: AtomicU32,
}

impl TrafficSplit {
    /// Shares requests between `first`, which gets what is left, and `others`.
    pub fn new(first: WeightedPool, others: Vec<WeightedPool>) -> Self {
        TrafficSplit { first, others, turn: AtomicU32::new(0) }
    }

    /// Whether a request may get one of several tags.
    pub fn is_shared(&self) -> bool {
        !self.others.is_empty()
    }

    /// The tags, the one that gets what is left first.
    pub fn arms(&self) -> impl Iterator<Item = &WeightedPool> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The next draw. Draws follow each other so that any number of them in a row is spread evenly (steps of
    /// the golden ratio around a circle): shares hold over few requests too, and no run gets one tag alone.
    pub fn draw(&self) -> SplitBucket {
        at(self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// The draw that would be next; it is nobody's by that.
    pub fn peek(&self) -> SplitBucket {
        at(self.turn.load(Ordering::Relaxed))
    }

    /// Who gets the requests with this draw. The others come first, so that their shares can grow.
    pub fn arm(&self, SplitBucket(draw): SplitBucket) -> &WeightedPool {
        let mut below = 0;
        let mut others = self.others.iter();
        let found = others.find(|arm| {
            below += u16::from(arm.percent) * (SplitBucket::ALL / 100);
            draw < below
        });
        found.unwrap_or(&self.first)
    }
}

fn at(turn: u32) -> SplitBucket {
    /// 2³² divided by the golden ratio.
    const STEP: u32 = 0x9E37_79B9;
    let around = u64::from(turn.wrapping_mul(STEP));
    SplitBucket(((around * u64::from(SplitBucket::ALL)) >> 32) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Algorithm, Percent};

    fn split(others: &[(&str, u8)]) -> TrafficSplit {
        let arm = |&(tag, percent): &(&str, u8)| WeightedPool {
            tag: tag.to_owned(),
            pool: Arc::new(Pool::new(
                Vec::new(),
                Vec::new(),
                Algorithm::RoundRobin,
                Percent::default(),
                Arc::default(),
            )),
            percent,
            provisional: false,
            metrics: None,
        };
        TrafficSplit::new(arm(&("a", 100)), others.iter().map(arm).collect())
    }

    fn count(split: &TrafficSplit, requests: usize, tag: &str) -> usize {
        (0..requests).filter(|_| split.arm(split.draw()).tag == tag).count()
    }

    #[test]
    fn shares_hold_over_any_number_of_requests() {
        let split = split(&[("b", 10), ("c", 25)]);
        for requests in [100, 1_000, 10_000] {
            let b = count(&split, requests, "b") as f64 / requests as f64;
            let c = count(&split, requests, "c") as f64 / requests as f64;
            assert!((b - 0.10).abs() < 0.02 && (c - 0.25).abs() < 0.02, "{requests}: {b} {c}");
        }
        assert_eq!(count(&self::split(&[]), 100, "a"), 100);
        assert_eq!(count(&self::split(&[("b", 100)]), 100, "b"), 100);
        assert_eq!(count(&self::split(&[("b", 0)]), 100, "a"), 100);
    }

    #[test]
    fn who_had_a_share_keeps_it_when_it_grows() {
        let (small, large) = (split(&[("b", 10)]), split(&[("b", 50)]));
        let draws = || (0..SplitBucket::ALL).filter_map(SplitBucket::new);
        assert_eq!(draws().count(), 10_000);
        assert!(draws().filter(|draw| small.arm(*draw).tag == "b").all(|draw| large.arm(draw).tag == "b"));
        assert_eq!(SplitBucket::new(10_000), None);
    }

    #[test]
    fn a_look_at_the_next_draw_takes_nothing() {
        let split = split(&[("b", 50)]);
        assert_eq!(split.peek(), split.peek());
        let next = split.peek();
        assert_eq!(split.draw(), next);
        assert_ne!(split.draw(), next);
    }
}
