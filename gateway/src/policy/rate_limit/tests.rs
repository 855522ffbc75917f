//! Tests of windows without a store: counting, refusals, and the fields that clients get.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use http::HeaderMap;
use prometheus::IntCounter;

use super::*;
use crate::telemetry::Metrics;

/// Table of counters for several limiters.
struct Bench {
    counters: Arc<Counters>,
    metrics: Metrics,
}

impl Bench {
    fn new() -> Bench {
        let evicted = IntCounter::new("evicted", "evicted").unwrap();
        Bench { counters: Arc::new(Counters::new(1 << 12, evicted)), metrics: Metrics::new().unwrap() }
    }

    fn limiter(&self, toml: &str, scope: &str) -> RateLimiter {
        let mut table: BTreeMap<String, RateLimits> = toml::from_str(toml).unwrap();
        let means = LimiterDeps {
            scope: &|_| scope,
            counters: &self.counters,
            store: None,
            refusals: &|name| self.metrics.rate_limits.refusals("host", "/", name),
        };
        RateLimiter::new(&table.remove("rate_limit").unwrap(), &means).unwrap()
    }

    fn windows(&self, toml: &str) -> Windows {
        self.limiter(toml, "").on_arrival.unwrap()
    }

    fn metric(&self, series: &str) -> bool {
        self.metrics.encode().unwrap().0.contains(series)
    }
}

fn ask(windows: &Windows, client: &str, key: &str, now: Instant) -> Verdict<Quota> {
    let mut headers = HeaderMap::new();
    headers.insert("x-key", key.parse().unwrap());
    let address: Option<IpAddr> = client.parse().ok();
    let subject = RateLimitSubject { address, headers: &headers, claim: &|_| None };
    match windows.check(&subject, now) {
        CheckOutcome::Done(verdict) => verdict,
        CheckOutcome::Waits(_) => panic!("there is no store"),
    }
}

fn allowed(windows: &Windows, client: &str, now: Instant) -> bool {
    matches!(ask(windows, client, "", now), Verdict::Continue(_))
}

fn refused(windows: &Windows, client: &str, key: &str, now: Instant) -> Reply {
    match ask(windows, client, key, now) {
        Verdict::Reply(reply) => reply,
        Verdict::Continue(quota) => panic!("allowed: {quota:?}"),
    }
}

/// Returns the `RateLimit` field of a response.
fn told(windows: &Windows, client: &str, key: &str, now: Instant) -> String {
    let Verdict::Continue(quota) = ask(windows, client, key, now) else { panic!("refused") };
    let mut response = ResponseHeader::build(200, None).unwrap();
    quota.on_response(&mut response).unwrap();
    response.headers["ratelimit"].to_str().unwrap().to_owned()
}

#[test]
fn request_above_the_limit_is_refused() {
    let bench = Bench::new();
    let windows = bench.windows("[rate_limit]\nrequests = 100\nwindow_secs = 60");
    let start = Instant::now();
    for n in 1..=100 {
        assert!(allowed(&windows, "192.0.2.1", start), "request {n}");
    }
    for _ in 0..50 {
        assert!(!allowed(&windows, "192.0.2.1", start + Duration::from_millis(59_999)));
    }
    assert!(allowed(&windows, "192.0.2.2", start), "another client is not affected");
    assert!(allowed(&windows, "192.0.2.1", start + Duration::from_secs(60)), "the window has passed");
    assert!(bench.metric("proxy_rate_limited_total{policy=\"default\",route=\"/\",vhost=\"host\"} 50"));
}

#[test]
fn response_and_429_carry_the_ratelimit_fields() {
    let bench = Bench::new();
    let windows = bench.windows("[rate_limit]\nrequests = 2\nwindow_secs = 10");
    let start = Instant::now();
    assert_eq!(told(&windows, "192.0.2.1", "", start), "\"default\";r=1;t=10");
    assert_eq!(windows.policy, "\"default\";q=2;w=10");

    allowed(&windows, "192.0.2.1", start);
    let reply = refused(&windows, "192.0.2.1", "", start + Duration::from_millis(7_500));
    assert_eq!(reply.status(), 429);
    assert_eq!(reply.fields()["retry-after"], "3");
    assert_eq!(reply.fields()["ratelimit"], "\"default\";r=0;t=3");
    assert_eq!(reply.fields()["ratelimit-policy"], "\"default\";q=2;w=10");
}

#[test]
fn scopes_and_windows_count_separately() {
    let bench = Bench::new();
    let toml = "[rate_limit]\nrequests = 1";
    let limiter = |scope| bench.limiter(toml, scope).on_arrival.unwrap();
    let (here, there) = (limiter("here"), limiter("there"));
    let now = Instant::now();
    assert!(allowed(&here, "2001:db8::1", now));
    assert!(!allowed(&here, "2001:db8::ffff", now), "of one customer");
    assert!(allowed(&there, "2001:db8::1", now));
    assert!(allowed(&here, "on a Unix socket", now));
    assert!(!allowed(&here, "on a Unix socket", now));
    let renamed = bench.limiter("[rate_limit]\nname = \"b\"\nrequests = 1", "here").on_arrival.unwrap();
    assert!(allowed(&renamed, "2001:db8::1", now));
}

const BURST_AND_DAY: &str = "
    [[rate_limit]]
    name = \"burst\"
    requests = 2
    window_secs = 1
    [[rate_limit]]
    name = \"daily\"
    requests = 3
    window_secs = 86400
";

#[test]
fn request_needs_room_in_each_window() {
    let bench = Bench::new();
    let windows = bench.windows(BURST_AND_DAY);
    let start = Instant::now();
    assert_eq!(windows.policy, "\"burst\";q=2;w=1, \"daily\";q=3;w=86400");
    assert_eq!(told(&windows, "192.0.2.1", "", start), "\"burst\";r=1;t=1, \"daily\";r=2;t=86400");
    allowed(&windows, "192.0.2.1", start);
    let reply = refused(&windows, "192.0.2.1", "", start);
    assert_eq!(reply.fields()["retry-after"], "1");
    assert_eq!(reply.fields()["ratelimit"], "\"burst\";r=0;t=1, \"daily\";r=1;t=86400", "not counted there");

    let later = start + Duration::from_secs(1);
    assert!(allowed(&windows, "192.0.2.1", later));
    let reply = refused(&windows, "192.0.2.1", "", later);
    assert_eq!(reply.fields()["retry-after"], "86399", "after which there is room in each of them");
    assert_eq!(reply.fields()["ratelimit"], "\"burst\";r=1;t=1, \"daily\";r=0;t=86399", "not counted there");
    assert!(bench.metric("proxy_rate_limited_total{policy=\"burst\",route=\"/\",vhost=\"host\"} 1"));
    assert!(bench.metric("proxy_rate_limited_total{policy=\"daily\",route=\"/\",vhost=\"host\"} 1"));
}

#[test]
fn parallel_requests_count_in_all_windows_or_in_none() {
    const TOML: &str = "
        [[rate_limit]]
        name = \"key\"
        requests = 100
        key = \"header:X-Key\"
        [[rate_limit]]
        name = \"address\"
        requests = 250
    ";
    for round in 0..20 {
        let bench = Bench::new();
        let windows = bench.windows(TOML);
        let now = Instant::now();
        let ask = |key: &str| matches!(ask(&windows, "192.0.2.1", key, now), Verdict::Continue(_));
        let mut admitted: usize = thread::scope(|scope| {
            let count = |i: usize| (0..200).filter(|n| ask(["a", "b", "c"][(n + i) % 3])).count();
            let threads: Vec<_> = (0..4).map(|i| scope.spawn(move || count(i))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(admitted <= 250, "round {round}: {admitted}");
        // Requests that were taken back have freed their room.
        admitted += (0..900).filter(|n| ask(["a", "b", "c"][n % 3])).count();
        assert_eq!(admitted, 250, "round {round}");
    }
}

#[test]
fn windows_by_claim_are_checked_separately() {
    let bench = Bench::new();
    let toml = "
        [[rate_limit]]
        requests = 10
        [[rate_limit]]
        name = \"tenant\"
        requests = 1
        key = \"jwt:tenant\"
    ";
    let limiter = bench.limiter(toml, "");
    let (arrival, claim) = (limiter.on_arrival.unwrap(), limiter.by_claim.unwrap());
    let now = Instant::now();
    let tenant = |name: &'static str, address: [u8; 4]| {
        let subject = RateLimitSubject {
            address: Some(address.into()),
            headers: &HeaderMap::new(),
            claim: &|asked| (asked == "tenant" && !name.is_empty()).then_some(name.into()),
        };
        match claim.check(&subject, now) {
            CheckOutcome::Done(Verdict::Continue(quota)) => Some(quota),
            _ => None,
        }
    };
    let Verdict::Continue(first) = ask(&arrival, "192.0.2.1", "", now) else { panic!("refused") };
    let both = first.and(&tenant("a", [192, 0, 2, 1]).unwrap());
    assert_eq!(both.limits, "\"default-1\";r=9;t=60, \"tenant\";r=0;t=60");
    assert_eq!(both.policy, "\"default-1\";q=10;w=60, \"tenant\";q=1;w=60");
    assert!(tenant("a", [192, 0, 2, 9]).is_none(), "wherever it asks from");
    assert!(tenant("b", [192, 0, 2, 1]).is_some());
    assert!(tenant("", [192, 0, 2, 1]).is_some(), "without a token, by the address");
    assert!(tenant("", [192, 0, 2, 1]).is_none());
}

#[test]
fn shared_key_is_equal_for_all_gateways_and_hides_names() {
    let (one, other) = (Bench::new(), Bench::new());
    let toml = "[rate_limit]\nkey = \"header:X-Key\"";
    let key = |bench: &Bench, scope: &str, name: &str, address: [u8; 4]| {
        let limiter = bench.limiter(toml, scope);
        let mut headers = HeaderMap::new();
        headers.insert("x-key", name.parse().unwrap());
        let subject = RateLimitSubject { address: Some(address.into()), headers: &headers, claim: &|_| None };
        limiter.windows().next().unwrap().shared_key(&subject)
    };
    let here = [192, 0, 2, 1];
    assert_eq!(key(&one, "s", "sesame", here), key(&other, "s", "sesame", [192, 0, 2, 2]));
    assert_ne!(key(&one, "s", "sesame", here), key(&one, "s", "sesam", here));
    assert_ne!(key(&one, "s", "sesame", here), key(&one, "t", "sesame", here));
    assert_ne!(key(&one, "s", "", here), key(&one, "s", "192.0.2.1", here));
    assert!(!key(&one, "s", "sesame", here).contains("sesame"));
    assert_eq!(key(&one, "s", &"x".repeat(8_000), here).len(), "gateway:rate:".len() + 32);
}

#[test]
fn empty_table_compiles_to_no_limiter() {
    let bench = Bench::new();
    let means = LimiterDeps {
        scope: &|_| "",
        counters: &bench.counters,
        store: None,
        refusals: &|name| bench.metrics.rate_limits.refusals("host", "/", name),
    };
    assert!(RateLimiter::new(&RateLimits(Vec::new()), &means).is_none());
}

#[test]
fn window_of_another_length_counts_anew() {
    let (bench, now) = (Bench::new(), Instant::now());
    let long = bench.windows("[rate_limit]\nrequests = 1\nwindow_secs = 3600\n");
    assert!(allowed(&long, "192.0.2.1", now) && !allowed(&long, "192.0.2.1", now));
    let short = bench.windows("[rate_limit]\nrequests = 1\nwindow_secs = 2\n");
    assert!(allowed(&short, "192.0.2.1", now), "what was counted in the other says nothing");
    assert!(!allowed(&short, "192.0.2.1", now) && allowed(&short, "192.0.2.1", now + Duration::from_secs(2)));
}
