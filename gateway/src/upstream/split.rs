//! Traffic splits: the choice of a tag, for a virtual host that divides its requests among several tags.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Pool;
use crate::telemetry::handles::{Lazy, TagMetrics};

/// Number from 0 to 9999 that decides which tag a request gets. Requests with the same number get the same tag, as
/// long as the shares do not change. A tag keeps its numbers when its share grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitBucket(u16);

impl SplitBucket {
    const ALL: u16 = 10_000;

    /// Returns the bucket with this number; `None` if the number is too large.
    pub fn new(number: u16) -> Option<Self> {
        (number < SplitBucket::ALL).then_some(SplitBucket(number))
    }

    /// Returns the number of the bucket.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// A pool with its share of the requests.
pub struct WeightedPool {
    /// Tag of the pool.
    pub tag: String,
    /// Backends of the tag.
    pub pool: Arc<Pool>,
    /// Share of the requests, in percent.
    pub percent: u8,
    /// True if a rollout has given the share, and may take it back at any moment.
    pub provisional: bool,
    /// Metrics by which the tags of a split can be compared; `None` if there is only one tag.
    pub metrics: Option<Lazy<TagMetrics>>,
}

/// Tags among which a virtual host divides its requests: at least one, and usually only one.
pub struct TrafficSplit {
    first: WeightedPool,
    others: Vec<WeightedPool>,
    turn: AtomicU32,
}

impl TrafficSplit {
    /// Returns a split in which `others` get their shares, and `first` gets the rest.
    pub fn new(first: WeightedPool, others: Vec<WeightedPool>) -> Self {
        TrafficSplit { first, others, turn: AtomicU32::new(0) }
    }

    /// Returns true if there is more than one tag.
    pub fn is_shared(&self) -> bool {
        !self.others.is_empty()
    }

    /// Returns the tags. The tag that gets the rest is the first.
    pub fn weighted_pools(&self) -> impl Iterator<Item = &WeightedPool> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Returns the next bucket. Consecutive buckets are spread evenly, because they are steps of the golden ratio
    /// around a circle. Therefore the shares are right even for few requests, and no tag gets a long run of requests.
    pub fn draw(&self) -> SplitBucket {
        at(self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the bucket that [`TrafficSplit::draw`] would return next, without taking it.
    pub fn peek(&self) -> SplitBucket {
        at(self.turn.load(Ordering::Relaxed))
    }

    /// Returns the pool for a bucket. The first tag has the highest buckets, so that the other shares can grow.
    pub fn weighted_pool(&self, SplitBucket(draw): SplitBucket) -> &WeightedPool {
        let mut below = 0;
        let mut others = self.others.iter();
        let found = others.find(|weighted_pool| {
            below += u16::from(weighted_pool.percent) * (SplitBucket::ALL / 100);
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
        let weighted_pool = |&(tag, percent): &(&str, u8)| WeightedPool {
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
        TrafficSplit::new(weighted_pool(&("a", 100)), others.iter().map(weighted_pool).collect())
    }

    fn count(split: &TrafficSplit, requests: usize, tag: &str) -> usize {
        (0..requests).filter(|_| split.weighted_pool(split.draw()).tag == tag).count()
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
    fn bucket_keeps_its_tag_when_the_share_grows() {
        let (small, large) = (split(&[("b", 10)]), split(&[("b", 50)]));
        let draws = || (0..SplitBucket::ALL).filter_map(SplitBucket::new);
        assert_eq!(draws().count(), 10_000);
        assert!(
            draws()
                .filter(|draw| small.weighted_pool(*draw).tag == "b")
                .all(|draw| large.weighted_pool(draw).tag == "b")
        );
        assert_eq!(SplitBucket::new(10_000), None);
    }

    #[test]
    fn peek_does_not_take_the_next_bucket() {
        let split = split(&[("b", 50)]);
        assert_eq!(split.peek(), split.peek());
        let next = split.peek();
        assert_eq!(split.draw(), next);
        assert_ne!(split.draw(), next);
    }
}
