//! What routing costs by the number of virtual hosts: `cargo bench -p gateway --bench route`.
//!
//! A lookup must not grow with it (at most 1.5 times from 10 hosts to 10 000), and 10 000 hosts with a route
//! each must be read, validated and compiled in under two seconds.

#![allow(clippy::unwrap_used, reason = "in a benchmark, a panic is the report")]

use std::fmt::Write;
use std::sync::Arc;

use divan::{Bencher, black_box};
use gateway::config::Source;
use gateway::live::{Names, Store};
use gateway::policy::Verdict;
use gateway::route;
use gateway::telemetry::Metrics;
use pingora::http::RequestHeader;

const HOSTS: [usize; 3] = [10, 100, 10_000];

fn main() {
    divan::main();
}

/// So many virtual hosts, each with a route of its own, every tenth of them a wildcard.
fn text(hosts: usize) -> String {
    let mut text = "[[backends]]\nid = \"a\"\naddress = \"127.0.0.1:3001\"\ntags = [\"a\"]\n".to_owned();
    for i in 0..hosts {
        let domain = if i % 10 == 9 { format!("*.w{i}.example.com") } else { format!("h{i}.example.com") };
        writeln!(
            text,
            "[[virtual_hosts]]\ndomain = \"{domain}\"\nenabled_backends_tag = \"a\"\n\
             [[virtual_hosts.routes]]\npath_prefix = \"/api\"\nstrip_prefix = true"
        )
        .unwrap();
    }
    text
}

fn compiled(text: &str) -> Store {
    let source = Source::built_in("bench", text.to_owned());
    let parsed = source.read().unwrap();
    Store::new(source, parsed, Names::Resolved, Arc::new(Metrics::new().unwrap())).unwrap()
}

fn store(hosts: usize) -> Store {
    compiled(&text(hosts))
}

fn request(host: &str) -> RequestHeader {
    let mut request = RequestHeader::build("GET", b"/api/users/7?page=2", None).unwrap();
    request.insert_header("Host", host).unwrap();
    request
}

/// Every host in its turn, so that what is measured is not one line of the cache.
fn lookups(bencher: Bencher<'_, '_>, requests: &[RequestHeader], hosts: usize) {
    let snapshot = store(hosts).load();
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % requests.len();
        assert!(matches!(
            route::find(&snapshot.hosts, black_box(&requests[turn]), None),
            Verdict::Continue(_)
        ));
    });
}

#[divan::bench(args = HOSTS)]
fn exact_host(bencher: Bencher<'_, '_>, hosts: usize) {
    // As many requests for any number of hosts, so that only the table differs.
    let requests: Vec<_> = (0..9).map(|i| request(&format!("h{}.example.com", i * (hosts / 10)))).collect();
    let requests: Vec<_> = requests.into_iter().filter(|request| known(hosts, request)).collect();
    lookups(bencher, &requests, hosts);
}

#[divan::bench(args = HOSTS)]
fn wildcard_host(bencher: Bencher<'_, '_>, hosts: usize) {
    let requests: Vec<_> = (0..hosts)
        .skip(9)
        .step_by(hosts.div_ceil(10).next_multiple_of(10))
        .map(|i| request(&format!("any.w{i}.example.com")))
        .collect();
    lookups(bencher, &requests, hosts);
}

/// Every tenth host is a wildcard, and has no exact name.
fn known(hosts: usize, request: &RequestHeader) -> bool {
    let host = request.headers["host"].to_str().unwrap();
    let number: usize = host.trim_start_matches('h').split('.').next().unwrap().parse().unwrap();
    number < hosts && number % 10 != 9
}

#[divan::bench(args = HOSTS, sample_count = 5)]
fn load_and_compile(bencher: Bencher<'_, '_>, hosts: usize) {
    let text = text(hosts);
    bencher.bench_local(|| compiled(black_box(&text)));
}
