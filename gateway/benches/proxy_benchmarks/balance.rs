//! Measures the cost of choosing a backend, and prints how even the choice is.
//!
//! The benchmark first prints the shares that result from weights and keys. Then it measures one attempt: it
//! chooses the backend, counts the request as started, and counts it as finished.

#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::cell::LazyCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::{Arc, Once};

use criterion::{Bencher, BenchmarkId, Criterion};
use gateway::config::{Algorithm, Percent};
use gateway::telemetry::Metrics;
use gateway::upstream::{BackendState, Member, Pool, Selection};

const BACKENDS: [usize; 3] = [3, 30, 300];
const KEYS: usize = 100_000;

const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("round_robin", Algorithm::RoundRobin),
    ("weighted", Algorithm::Weighted),
    ("least_connections", Algorithm::LeastConnections),
    ("random_two_choices", Algorithm::RandomTwoChoices),
    ("consistent_hash", Algorithm::ConsistentHash),
];

pub fn benchmarks(criterion: &mut Criterion) {
    static FIGURES: Once = Once::new();
    let mut group = criterion.benchmark_group("balance");
    for (name, algorithm) in ALGORITHMS {
        for backends in BACKENDS {
            let weights: Vec<u32> = (0..backends).map(|i| 1 + i as u32 % 5).collect();
            let pool = LazyCell::new(|| pool(algorithm, &weights));
            group.bench_function(BenchmarkId::new(name, backends), |bencher| {
                // Printed only if a benchmark of this group is selected on the command line.
                FIGURES.call_once(print_shares);
                attempts(bencher, &pool);
            });
        }
    }
    group.finish();
}

fn print_shares() {
    println!("shares of 7000 requests, weights 5, 1 and 1, in percent");
    for algorithm in [Algorithm::Weighted, Algorithm::ConsistentHash] {
        println!("  {algorithm:?}: {}", shares(&counts(&pool(algorithm, &[5, 1, 1]), 7000)));
    }
    println!("consistent hashing, {KEYS} keys");
    for backends in [10, 30] {
        let weights = vec![1; backends];
        let even = counts(&pool(Algorithm::ConsistentHash, &weights), KEYS);
        let (least, most) = (even.values().min().unwrap(), even.values().max().unwrap());
        let fair = KEYS / backends;
        println!(
            "  {backends} backends: the least gets {:.2} of its fair share, the most {:.2}; without one of them {:.1}% \
             of the keys move, {} of which were not its own",
            *least as f64 / fair as f64,
            *most as f64 / fair as f64,
            moved(&weights).0,
            moved(&weights).1
        );
    }
}

fn pool(algorithm: Algorithm, weights: &[u32]) -> Pool {
    let metrics = Metrics::new().unwrap();
    let member = |(i, weight): (usize, &u32)| {
        let address = SocketAddr::from(([10, 0, (i / 250) as u8, (i % 250) as u8], 8080));
        let name = format!("backend-{i}");
        let metrics = metrics.backends.handles(&name);
        let backend = Arc::new(BackendState::new(name, address.into(), None, metrics));
        Member { backend, weight: *weight }
    };
    let members = weights.iter().enumerate().map(member).collect();
    Pool::new(members, Vec::new(), algorithm, Percent::default(), Arc::default())
}

fn wanted(key: &[u8]) -> Selection<'_> {
    Selection { key, sticky_id: None, limit: u32::MAX, respects_circuits: true }
}

/// Returns the name of the backend that is chosen for the key.
fn owner(pool: &Pool, key: usize) -> String {
    let key = key.to_string();
    pool.begin_attempt(&wanted(key.as_bytes()), &[]).unwrap().backend().name.clone()
}

fn counts(pool: &Pool, requests: usize) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for key in 0..requests {
        *counts.entry(owner(pool, key)).or_default() += 1;
    }
    counts
}

fn shares(counts: &HashMap<String, usize>) -> String {
    let all: usize = counts.values().sum();
    let mut names: Vec<_> = counts.keys().collect();
    names.sort();
    let share = |name: &&String| format!("{:.2}", counts[*name] as f64 * 100.0 / all as f64);
    names.iter().map(share).collect::<Vec<_>>().join(" ")
}

/// Returns the percentage of keys that move to another backend when one backend is drained, and how many of the
/// moved keys had not belonged to the drained backend.
fn moved(weights: &[u32]) -> (f64, usize) {
    let pool = pool(Algorithm::ConsistentHash, weights);
    let before: Vec<String> = (0..KEYS).map(|key| owner(&pool, key)).collect();
    let (gone, _) = pool.members().nth(weights.len() / 2).unwrap();
    gone.backend.set_drained(true);
    let is_moved = |(key, before): &(usize, &String)| owner(&pool, *key) != **before;
    let moved: Vec<_> = before.iter().enumerate().filter(is_moved).collect();
    let others = moved.iter().filter(|(_, before)| **before != gone.backend.name).count();
    (moved.len() as f64 * 100.0 / KEYS as f64, others)
}

fn attempts(bencher: &mut Bencher<'_>, pool: &Pool) {
    let keys: Vec<String> = (0..1024).map(|key| format!("/products/{key}")).collect();
    let mut turn = 0;
    bencher.iter(|| {
        turn += 1;
        let key = &keys[turn % keys.len()];
        drop(black_box(pool.begin_attempt(&wanted(key.as_bytes()), &[])));
    });
}
