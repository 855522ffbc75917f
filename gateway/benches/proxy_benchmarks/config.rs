//! Measures the cost of a configuration change by the number of virtual hosts.
//!
//! The cases are: reading and compiling the configuration, changing it through the management API, and
//! comparing two configurations. The target is to compile 10 000 virtual hosts with one route each in under two
//! seconds.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use gateway::config::{Config, Source, difference};

use crate::{compiled, hosts};

const HOSTS: [usize; 3] = [10, 100, 10_000];

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("config");
    group.sample_size(10);
    for number in HOSTS {
        let text = LazyCell::new(|| hosts(number));
        group.bench_function(BenchmarkId::new("parse_and_validate", number), |bencher| {
            let text = &**text;
            bencher.iter(|| Config::parse("bench", black_box(text)).unwrap());
        });
        group.bench_function(BenchmarkId::new("load_and_compile", number), |bencher| {
            let text = &**text;
            bencher.iter(|| compiled(black_box(text)));
        });
    }
    let changed = LazyCell::new(|| {
        let source = Source::built_in("bench", hosts(100));
        let parsed = source.read().unwrap();
        let mut new = parsed.config.to_json();
        new["virtual_hosts"][50]["http_to_https"] = true.into();
        new["proxy"]["trusted_proxies"] = serde_json::json!(["10.0.0.0/8"]);
        (source, parsed, new)
    });
    group.bench_function("change/100", |bencher| {
        let (source, parsed, new) = &*changed;
        bencher.iter(|| source.change(parsed, black_box(new)).unwrap());
    });
    group.bench_function("difference/100", |bencher| {
        let (source, parsed, new) = &*changed;
        let new = source.change(parsed, new).unwrap();
        bencher.iter(|| difference(&parsed.config, black_box(&new.config)));
    });
    group.bench_function("json_schema", |bencher| bencher.iter(gateway::config::json_schema));
    group.finish();
}
