//! Measures the cost of rate limits in time and in memory.
//!
//! Ten million clients must take no more memory than the table that was allocated for the first client. A check
//! costs a little more with each window. It costs the same for a known client and for a new one.

use std::cell::LazyCell;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use gateway::config::RateLimits;
use gateway::policy::rate_limit::{
    CheckOutcome, Counters, LimiterDeps, RateLimitSubject, RateLimiter, Windows,
};
use gateway::telemetry::Metrics;
use http::HeaderMap;

const CLIENTS: u32 = 10_000_000;

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limiter");
    let headers = HeaderMap::new();
    for number in [1, 2, 4] {
        let windows = LazyCell::new(|| Table::new().windows(number));
        group.bench_function(BenchmarkId::new("known", number), |bencher| {
            bencher.iter(|| check(&windows, &headers, 1, Instant::now()));
        });
    }
    let shared = LazyCell::new(|| Table::new().windows(1));
    group.bench_function("known_to_two_threads", |bencher| {
        let windows = &*shared;
        bencher.iter_custom(|checks| two_threads(windows, checks));
    });
    // Each check is for a new client, and the table is full.
    let full = LazyCell::new(ten_million_clients);
    let mut client = CLIENTS;
    group.bench_function("newcomers", |bencher| {
        let windows = &full.1;
        bencher.iter(|| {
            client += 1;
            check(windows, &headers, client, Instant::now());
        });
    });
    group.finish();
}

/// Returns the time in which two threads each check the same client `checks` times.
fn two_threads(windows: &Windows, checks: u64) -> Duration {
    let (headers, begun) = (HeaderMap::new(), Instant::now());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..checks).for_each(|_| check(windows, &headers, 1, Instant::now())));
        }
    });
    begun.elapsed()
}

struct Table {
    counters: Arc<Counters>,
    metrics: Metrics,
}

impl Table {
    fn new() -> Table {
        let metrics = Metrics::new().unwrap();
        Table { counters: Arc::new(Counters::new(1 << 18, metrics.rate_limits.evicted.clone())), metrics }
    }

    /// Returns `number` windows that apply together.
    fn windows(&self, number: usize) -> Windows {
        let window = serde_json::json!({ "requests": 1000, "window_secs": 3600 });
        let limits: RateLimits = serde_json::from_value(vec![window; number].into()).unwrap();
        let means = LimiterDeps {
            scope: &|_| "route",
            counters: &self.counters,
            store: None,
            refusals: &|window| self.metrics.rate_limits.refusals("host", "route", window),
        };
        RateLimiter::new(&limits, &means).unwrap().on_arrival.unwrap()
    }
}

fn check(windows: &Windows, headers: &HeaderMap, client: u32, now: Instant) {
    let asker = RateLimitSubject { address: Some(IpAddr::V4(client.into())), headers, claim: &|_| None };
    let CheckOutcome::Done(verdict) = windows.check(&asker, now) else { panic!("there is no store") };
    black_box(verdict);
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * 4096
}

/// Returns a full table that has counted [`CLIENTS`] clients. Fails if the memory has grown since the first client.
fn ten_million_clients() -> (Table, Windows) {
    let (table, headers, now) = (Table::new(), HeaderMap::new(), Instant::now());
    let windows = table.windows(1);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    check(&windows, &headers, 0, now);
    let before = resident();
    (0..CLIENTS).for_each(|client| check(&windows, &headers, client, now));
    let after = resident();
    eprintln!(
        "{CLIENTS} clients in {:.1} s: the table has {:.2} MiB; resident before {:.2} MiB, after {:.2} MiB; \
         {} clients were forgotten for want of room",
        now.elapsed().as_secs_f64(),
        mib(table.counters.bytes() as u64),
        mib(before),
        mib(after),
        table.metrics.rate_limits.evicted.get()
    );
    assert!(after < before + (1 << 20), "memory grows with the number of clients");
    (table, windows)
}
