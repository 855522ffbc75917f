//! Measures the cost of a route lookup by the number of virtual hosts.
//!
//! The cost must not grow with the number: a lookup among 10 000 virtual hosts may take at most 1.5 times as
//! long as one among 10.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{Bencher, BenchmarkId, Criterion};
use gateway::live::Snapshot;
use gateway::policy::Verdict;
use gateway::route;
use pingora::http::RequestHeader;

use crate::{compiled, hosts};

const HOSTS: [usize; 3] = [10, 100, 10_000];

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for number in HOSTS {
        let snapshot = LazyCell::new(|| compiled(&hosts(number)).load());
        group.bench_function(BenchmarkId::new("exact_host", number), |bencher| {
            lookups(bencher, &snapshot, &exact(number));
        });
        group.bench_function(BenchmarkId::new("wildcard_host", number), |bencher| {
            lookups(bencher, &snapshot, &wildcards(number));
        });
    }
    group.finish();
}

fn request(host: &str) -> RequestHeader {
    let mut request = RequestHeader::build("GET", b"/api/users/7?page=2", None).unwrap();
    request.insert_header("Host", host).unwrap();
    request
}

/// Returns requests for exact host names. The number of requests is the same for every number of hosts, so that
/// only the table differs.
fn exact(hosts: usize) -> Vec<RequestHeader> {
    let numbers = (0..9).map(|i| i * (hosts / 10)).filter(|number| number % 10 != 9);
    numbers.map(|number| request(&format!("h{number}.example.com"))).collect()
}

/// Returns requests for host names that match wildcards.
fn wildcards(hosts: usize) -> Vec<RequestHeader> {
    let step = hosts.div_ceil(10).next_multiple_of(10);
    let numbers = (0..hosts).skip(9).step_by(step);
    numbers.map(|number| request(&format!("any.w{number}.example.com"))).collect()
}

/// Measures lookups for every host in turn, so that the benchmark does not measure a single cache line of the
/// processor.
fn lookups(bencher: &mut Bencher<'_>, snapshot: &Snapshot, requests: &[RequestHeader]) {
    let mut turn = 0;
    bencher.iter(|| {
        turn = (turn + 1) % requests.len();
        let found = route::find(&snapshot.hosts, black_box(&requests[turn]), None);
        assert!(matches!(found, Verdict::Continue(_)));
    });
}
