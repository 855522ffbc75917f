//! Metrics of finished requests and of those in flight, and the page that shows them.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry, Result, TextEncoder};

/// Metrics of the gateway.
pub struct Telemetry {
    registry: Registry,
    requests: IntCounterVec,
    active: IntGauge,
}

/// Guard of a request in flight. The request counts as active until the guard is dropped, however it ends.
pub struct ActiveGuard(IntGauge);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Telemetry {
    /// Returns the metrics, all at 0.
    ///
    /// # Errors
    /// Returns an error if a metric cannot be registered. These metrics can always be registered.
    pub fn new() -> Result<Telemetry> {
        let requests = Opts::new("proxy_requests_total", "Requests by route, method and status class");
        let requests = IntCounterVec::new(requests, &["route", "method", "status"])?;
        let active = IntGauge::new("proxy_requests_active", "Requests in flight")?;
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(active.clone()))?;
        Ok(Telemetry { registry, requests, active })
    }

    /// Counts a request as active until the guard is dropped.
    pub fn active(&self) -> ActiveGuard {
        self.active.inc();
        ActiveGuard(self.active.clone())
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> i64 {
        self.active.get()
    }

    /// Counts a finished request. `route` must be from the configuration, so that the labels stay few.
    pub fn record(&self, route: &str, method: &Method, status: u16) {
        let known =
            ["GET", "HEAD", "POST", "PUT", "DELETE"].into_iter().find(|known| *known == method.as_str());
        let class = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"].get(usize::from(status / 100));
        let labels = [route, known.unwrap_or("other"), class.unwrap_or(&"other")];
        self.requests.with_label_values(&labels).inc();
    }

    /// Returns all metrics, in the text format of Prometheus.
    pub fn text(&self) -> String {
        // The encoder fails only for a family without metrics, and `gather` returns none of those.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// Page with the metrics, at every path of the metrics listener.
pub struct MetricsPage(pub Arc<Telemetry>);

#[async_trait]
impl ServeHttp for MetricsPage {
    async fn response(&self, _session: &mut ServerSession) -> Response<Vec<u8>> {
        let text = self.0.text().into_bytes();
        Response::builder().header("Content-Length", text.len()).body(text).unwrap_or_default()
    }
}
