//! Measures the cost of metrics: counting one request with all its handles, and the scrape that Prometheus asks
//! for every few seconds.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use gateway::telemetry::Metrics;
use gateway::telemetry::handles::{Lazy, RouteMetrics};
use http::Method;

const ROUTES: [usize; 3] = [1, 10, 100];

pub fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metrics");
    let one = LazyCell::new(|| with_routes(1));
    group.bench_function("request", |bencher| {
        let (metrics, routes) = &*one;
        let route = &routes[0];
        bencher.iter(|| count(metrics, black_box(route)));
    });
    group.bench_function("backend", |bencher| {
        let backend = one.0.backends.handles("web-1");
        bencher.iter(|| {
            backend.requests.inc();
            black_box(&backend).requests_active.inc();
            backend.requests_active.dec();
        });
    });
    for number in ROUTES {
        let served = LazyCell::new(|| with_routes(number));
        group.bench_function(BenchmarkId::new("encode", number), |bencher| {
            let (metrics, _) = &*served;
            bencher.iter(|| metrics.encode().unwrap());
        });
    }
    group.finish();
}

/// Returns metrics of `number` routes. Each route has counted one request.
fn with_routes(number: usize) -> (Arc<Metrics>, Vec<Lazy<RouteMetrics>>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let routes = (0..number).map(|i| metrics.lazy_route(&format!("h{i}.example.com"), "/"));
    let routes: Vec<_> = routes.inspect(|route| count(&metrics, route)).collect();
    (metrics, routes)
}

fn count(metrics: &Metrics, route: &RouteMetrics) {
    metrics.requests_active.inc();
    route.request(&Method::GET);
    metrics.response(route, 200);
    route.latency.observe(0.001);
    route.duration_ms.observe(1.5);
    metrics.requests_active.dec();
}
