//! Measures the steps of a request with criterion: `cargo bench --bench proxy_benchmarks`.
//!
//! Each module is a benchmark group. A word after `cargo bench` selects benchmarks: `cargo bench metrics`,
//! `cargo bench config/load`. Criterion compares the results with the previous run and writes
//! `target/criterion/report/index.html`. If the machine does other work at the same time, criterion reports
//! changes that are not real. `make bench` measures the gateway as a whole.

// `criterion_group!` generates public items without documentation.
#![allow(missing_docs, unreachable_pub, clippy::panic, clippy::unwrap_used, reason = "a panic is the report")]

mod auth;
mod balance;
mod config;
mod limiter;
mod metrics;
mod route;

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::config::Source;
use gateway::live::{Resolution, Store};
use gateway::telemetry::Metrics;

criterion_group! {
    name = benches;
    // Short times, because there are many benchmarks: a full run takes a few minutes.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets =
        metrics::benchmarks,
        config::benchmarks,
        route::benchmarks,
        balance::benchmarks,
        limiter::benchmarks,
        auth::benchmarks
}
criterion_main!(benches);

/// Reads, validates and compiles a configuration.
fn compiled(text: &str) -> Store {
    let source = Source::built_in("bench", text.to_owned());
    let parsed = source.read().unwrap();
    Store::new(source, parsed, Resolution::Resolved, Arc::new(Metrics::new().unwrap())).unwrap()
}

/// Returns a configuration with `number` virtual hosts, each with one route. Every tenth virtual host is a wildcard.
fn hosts(number: usize) -> String {
    let mut text = "[[backends]]\nid = \"a\"\naddress = \"127.0.0.1:3001\"\ntags = [\"a\"]\n".to_owned();
    for i in 0..number {
        let domain = if i % 10 == 9 { format!("*.w{i}.example.com") } else { format!("h{i}.example.com") };
        text.push_str(&format!(
            "[[virtual_hosts]]\ndomain = \"{domain}\"\nenabled_backends_tag = \"a\"\n\
             [[virtual_hosts.routes]]\npath_prefix = \"/api\"\nstrip_prefix = true\n"
        ));
    }
    text
}
