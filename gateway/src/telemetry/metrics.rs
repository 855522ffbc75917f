//! Prometheus metrics. Every label has few values (a host, a backend, a method, a status). The metric handles for a
//! request are looked up when a configuration is compiled, or by the first request of a route. So an update is one
//! atomic addition.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use prometheus::{
    Encoder, Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use super::acme::AcmeFamilies;
use super::auth::AuthFamilies;
use super::backends::BackendFamilies;
use super::families::{ByStatus, Families, gone};
use super::handles::{
    ByClass, CLASSES, GRPC_STATUSES, GrpcMetrics, Lazy, METHODS, MirrorMetrics, RouteMetrics, TagMetrics,
    grpc_label,
};
use super::limits::LimitMetrics;
use super::rate_limits::RateLimitFamilies;
use crate::PINGORA_VERSION;

/// Buckets of latency histograms, in seconds. They range from a response on loopback to a long poll.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Labels of the kinds of injected faults.
const FAULTS: [&str; 2] = ["delay", "abort"];

/// Labels of the results of copies of requests.
const MIRRORED: [&str; 3] = ["answered", "failed", "dropped"];

/// Metrics of the process, with their registry.
pub struct Metrics {
    registry: Registry,
    /// Number of requests that are being served now.
    pub requests_active: IntGauge,
    /// Number of WebSockets that are open now.
    pub websockets_active: IntGauge,
    /// Number of client connections that are open now.
    pub connections_active: IntGauge,
    /// Number of HTTP/2 streams that clients have opened and that the gateway has not answered yet.
    pub http2_streams: IntGauge,
    /// Number of connections closed at once because `max_connections` were open.
    pub connections_refused: IntCounter,
    /// Number of connections closed at once because their client had `max_connections_per_ip` open.
    pub connections_refused_of_address: IntCounter,
    /// Number of connections closed because they took too long to open.
    pub connections_abandoned: IntCounter,
    /// Number of connections closed because their PROXY header was wrong or missing.
    pub proxy_headers_refused: IntCounter,
    /// Number of successful TLS handshakes with clients.
    pub tls_handshakes: IntCounter,
    /// Number of failed TLS handshakes with clients.
    pub tls_handshakes_failed: IntCounter,
    /// Responses per second, over the last seconds.
    pub requests_per_second: Gauge,
    /// Share of responses other than 5xx among all responses, over the last seconds.
    pub success_rate: Gauge,
    /// Result of the last attempt to load a configuration: 1 if it succeeded, else 0.
    pub last_reload_successful: IntGauge,
    /// Number of lost log lines, which could not be written, or not fast enough.
    pub log_lines_dropped: IntGauge,
    /// Number of virtual hosts that use a self-signed certificate, because they have no other certificate.
    pub self_signed: IntGauge,
    /// Metrics of certificates from an ACME server.
    pub acme: AcmeFamilies,
    /// Counters of exceeded limits.
    pub limits: LimitMetrics,
    /// Metrics of rate limits.
    pub rate_limits: RateLimitFamilies,
    /// Metrics of denied requests, and of the keys of issuers.
    pub auth: AuthFamilies,
    /// Metrics of backends.
    pub backends: BackendFamilies,
    api_requests: IntCounterVec,
    api_latency: HistogramVec,
    by_status: ByStatus,
    requests: IntCounterVec,
    responses: IntCounterVec,
    latency: HistogramVec,
    duration: HistogramVec,
    retries: IntCounterVec,
    retries_refused: IntCounterVec,
    faults: IntCounterVec,
    mirrored: IntCounterVec,
    grpc: IntCounterVec,
    certificates: IntGaugeVec,
    certificates_begin: IntGaugeVec,
    lookups: IntCounterVec,
    upgrades: IntCounterVec,
    refused: [IntCounter; REFUSED.len()],
    tag_responses: IntCounterVec,
    tag_latency: HistogramVec,
}

/// Labels of the reasons to refuse an invalid request: names of problems, and `other`.
const REFUSED: [&str; 9] = [
    "bad_request",
    "expectation_failed",
    "head_too_large",
    "method_not_allowed",
    "not_implemented",
    "request_timeout",
    "uri_too_long",
    "version_not_supported",
    "other",
];

impl Metrics {
    /// Creates all metrics, with the value zero.
    ///
    /// # Errors
    /// Returns an error if two metrics have the same name, which is a mistake in this module.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let new = Families(&registry);
        new.constant(
            "proxy_build_info",
            &[("version", env!("CARGO_PKG_VERSION")), ("pingora", PINGORA_VERSION)],
        )?;
        let route = &["vhost", "route"];
        let milliseconds = BUCKETS.map(|seconds| seconds * 1000.0);
        let handshakes =
            new.counters("proxy_tls_handshakes_total", "TLS handshakes with clients", &["result"])?;
        let refused = new.counters(
            "proxy_connections_refused_total",
            "Connections refused by the limit on all connections (total) or on those from one address (address)",
            &["reason"],
        )?;
        let requests_refused =
            new.counters("proxy_requests_refused_total", "Refused invalid requests, by reason", &["reason"])?;
        Ok(Metrics {
            refused: REFUSED.map(|reason| requests_refused.with_label_values(&[reason])),
            requests_active: new.gauge("proxy_requests_active", "Requests being served now")?,
            websockets_active: new.gauge("proxy_websockets_active", "WebSockets open now")?,
            connections_active: new.gauge("proxy_connections_active", "Client connections open now")?,
            http2_streams: new.gauge("proxy_http2_streams_active", "HTTP/2 streams of clients open now")?,
            connections_refused: refused.with_label_values(&["total"]),
            connections_refused_of_address: refused.with_label_values(&["address"]),
            connections_abandoned: new
                .counter("proxy_connections_abandoned_total", "Connections that took too long to open")?,
            proxy_headers_refused: new.counter(
                "proxy_proxy_headers_refused_total",
                "Connections closed because their PROXY header was missing, invalid or not trusted",
            )?,
            tls_handshakes: handshakes.with_label_values(&["ok"]),
            tls_handshakes_failed: handshakes.with_label_values(&["failed"]),
            certificates: new.gauges(
                "proxy_certificate_not_after_timestamp_seconds",
                "When a certificate expires, in seconds since 1970",
                &["vhost", "key"],
            )?,
            certificates_begin: new.gauges(
                "proxy_certificate_not_before_timestamp_seconds",
                "When a certificate becomes valid, in seconds since 1970",
                &["vhost", "key"],
            )?,
            requests_per_second: new
                .rate("proxy_requests_per_second", "Responses a second, over 10 seconds")?,
            success_rate: new
                .rate("proxy_success_rate", "Share of responses that were not 5xx, over 10 seconds")?,
            last_reload_successful: new.gauge(
                "proxy_config_last_reload_successful",
                "1 if the last configuration was applied, else 0",
            )?,
            log_lines_dropped: new.gauge("proxy_log_lines_dropped", "Log lines lost since the start")?,
            self_signed: new.gauge(
                "proxy_self_signed_certificates",
                "Virtual hosts that use a generated, self-signed certificate because they have no other",
            )?,
            acme: AcmeFamilies::new(&new)?,
            limits: LimitMetrics::new(&new)?,
            rate_limits: RateLimitFamilies::new(&new)?,
            auth: AuthFamilies::new(&new)?,
            backends: BackendFamilies::new(&new)?,
            api_requests: new.counters(
                "api_requests_total",
                "Requests to the management API",
                &["method", "path", "status"],
            )?,
            api_latency: new.histograms(
                "api_latency_seconds",
                "Time until the management API has responded",
                &["method", "path"],
                &BUCKETS,
            )?,
            by_status: ByStatus::new(new.counters(
                "proxy_responses_by_status_total",
                "Responses, by status code",
                &["status"],
            )?),
            requests: new.counters("proxy_requests_total", "Requests", &["vhost", "route", "method"])?,
            responses: new.counters(
                "proxy_responses_total",
                "Responses, by class of status",
                &["vhost", "route", "status"],
            )?,
            latency: new.histograms(
                "proxy_latency_seconds",
                "Time to the response's head",
                route,
                &BUCKETS,
            )?,
            duration: new.histograms(
                "proxy_request_duration_ms",
                "Time to the response's last byte, in milliseconds",
                route,
                &milliseconds,
            )?,
            retries: new.counters("proxy_retries_total", "Attempts after the first", route)?,
            retries_refused: new.counters(
                "proxy_retries_refused_total",
                "Retries refused by the retry budget",
                route,
            )?,
            faults: new.counters(
                "proxy_faults_injected_total",
                "Requests delayed or aborted on purpose",
                &["vhost", "route", "kind"],
            )?,
            mirrored: new.counters(
                "proxy_mirrored_total",
                "Mirrored copies of requests, by result",
                &["vhost", "route", "result"],
            )?,
            upgrades: new.counters(
                "proxy_upgrades_total",
                "Listeners taken over from another process at the start, and hand-overs to one that failed",
                &["result"],
            )?,
            grpc: new.counters(
                "proxy_grpc_responses_total",
                "gRPC calls, by status",
                &["vhost", "route", "grpc_status"],
            )?,
            lookups: new.counters("proxy_dns_lookups_total", "Lookups of backends' names", &["result"])?,
            tag_responses: new.counters(
                "proxy_tag_responses_total",
                "Responses of virtual hosts with a split, by tag and class of status",
                &["vhost", "tag", "status"],
            )?,
            tag_latency: new.histograms(
                "proxy_tag_latency_seconds",
                "Time to the response's head, by tag, of virtual hosts with a split",
                &["vhost", "tag"],
                &BUCKETS,
            )?,
            registry,
        })
    }

    /// Counts a request that is refused because it is invalid. `reason` is the name of the problem in the response.
    pub fn refused(&self, reason: &str) {
        let known = REFUSED.iter().position(|known| *known == reason);
        self.refused[known.unwrap_or(REFUSED.len() - 1)].inc();
    }

    /// Returns the metric handles of a route, which are looked up when they are first needed.
    pub fn lazy_route(self: &Arc<Self>, vhost: &str, route: &str) -> Lazy<RouteMetrics> {
        Lazy::new(self.clone(), [vhost, route], Metrics::route)
    }

    fn route(&self, vhost: &str, route: &str) -> RouteMetrics {
        let labels = [vhost, route];
        let request = |method: &str| self.requests.with_label_values(&[vhost, route, method]);
        RouteMetrics {
            requests: std::array::from_fn(|i| request(METHODS.get(i).copied().unwrap_or("other"))),
            responses: ByClass(CLASSES.map(|class| self.responses.with_label_values(&[vhost, route, class]))),
            latency: self.latency.with_label_values(&labels),
            duration_ms: self.duration.with_label_values(&labels),
            retries: self.retries.with_label_values(&labels),
            retries_refused: self.retries_refused.with_label_values(&labels),
            refusals: self.auth.of_route(vhost, route),
            faults_delayed: self.faults.with_label_values(&[vhost, route, FAULTS[0]]),
            faults_aborted: self.faults.with_label_values(&[vhost, route, FAULTS[1]]),
            mirror: MirrorMetrics {
                answered: self.mirrored.with_label_values(&[vhost, route, MIRRORED[0]]),
                failed: self.mirrored.with_label_values(&[vhost, route, MIRRORED[1]]),
                dropped: self.mirrored.with_label_values(&[vhost, route, MIRRORED[2]]),
            },
            grpc: GrpcMetrics {
                family: self.grpc.clone(),
                labels: labels.map(str::to_owned),
                counters: Default::default(),
            },
        }
    }

    /// Returns the metric handles of a tag, which are looked up when they are first needed.
    pub fn lazy_tag(self: &Arc<Self>, vhost: &str, tag: &str) -> Lazy<TagMetrics> {
        Lazy::new(self.clone(), [vhost, tag], Metrics::tag)
    }

    /// Returns the metric handles of a tag of a virtual host.
    pub fn tag(&self, vhost: &str, tag: &str) -> TagMetrics {
        let responses = |class: &str| self.tag_responses.with_label_values(&[vhost, tag, class]);
        TagMetrics {
            responses: ByClass(CLASSES.map(responses)),
            latency: self.tag_latency.with_label_values(&[vhost, tag]),
        }
    }

    /// Removes the metrics of a tag that no longer has a share.
    pub fn forget_tag(&self, vhost: &str, tag: &str) {
        for class in CLASSES {
            gone(self.tag_responses.remove_label_values(&[vhost, tag, class]));
        }
        gone(self.tag_latency.remove_label_values(&[vhost, tag]));
    }

    /// Removes the metrics of a route that no longer exists. Otherwise `/metrics` would contain them for ever.
    pub fn forget_route(&self, vhost: &str, route: &str) {
        for method in METHODS.iter().copied().chain(["other"]) {
            gone(self.requests.remove_label_values(&[vhost, route, method]));
        }
        for class in CLASSES {
            gone(self.responses.remove_label_values(&[vhost, route, class]));
        }
        for histograms in [&self.latency, &self.duration] {
            gone(histograms.remove_label_values(&[vhost, route]));
        }
        for counters in [&self.retries, &self.retries_refused] {
            gone(counters.remove_label_values(&[vhost, route]));
        }
        for (counters, values) in [(&self.faults, &FAULTS[..]), (&self.mirrored, &MIRRORED[..])] {
            for value in values {
                gone(counters.remove_label_values(&[vhost, route, value]));
            }
        }
        self.auth.forget_route(vhost, route);
        for status in (0..GRPC_STATUSES).map(grpc_label) {
            gone(self.grpc.remove_label_values(&[vhost, route, &status]));
        }
    }

    /// Sets the validity of a virtual host's certificate. `key` is the algorithm of the certificate's key.
    pub fn certificate(&self, vhost: &str, key: &str, not_before: SystemTime, not_after: SystemTime) {
        for (family, at) in [(&self.certificates_begin, not_before), (&self.certificates, not_after)] {
            let secs = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            family.with_label_values(&[vhost, key]).set(i64::try_from(secs).unwrap_or(i64::MAX));
        }
    }

    /// Removes the metrics of a certificate that no longer exists.
    pub fn forget_certificate(&self, vhost: &str, key: &str) {
        gone(self.certificates.remove_label_values(&[vhost, key]));
        gone(self.certificates_begin.remove_label_values(&[vhost, key]));
    }

    /// Returns the counters of lookups of backends' names: successful lookups, then failed lookups.
    pub fn lookups(&self) -> [IntCounter; 2] {
        ["answered", "failed"].map(|result| self.lookups.with_label_values(&[result]))
    }

    /// Returns the counters of upgrades: takeovers at the start of a process, then failed hand-overs. The successor
    /// counts a hand-over that succeeds.
    pub fn upgrades(&self) -> [IntCounter; 2] {
        ["taken_over", "failed"].map(|result| self.upgrades.with_label_values(&[result]))
    }

    /// Counts the response to a request.
    pub fn response(&self, route: &RouteMetrics, status: u16) {
        self.by_status.counter(status).inc();
        route.responses.count(status);
    }

    /// Counts a request to the management API. `path` is the path template of the API description, not the requested
    /// path.
    pub fn api_request(&self, method: &Method, path: &str, status: u16, seconds: f64) {
        let method = METHODS.iter().find(|known| **known == method.as_str()).unwrap_or(&"other");
        self.api_requests.with_label_values(&[method, path, &status.to_string()]).inc();
        self.api_latency.with_label_values(&[method, path]).observe(seconds);
    }

    /// Returns the number of responses so far, and the number of 5xx responses among them.
    pub fn answered(&self) -> (u64, u64) {
        self.by_status.totals()
    }

    /// Returns all metrics in Prometheus' text format, and the content type of that format.
    ///
    /// # Errors
    /// Returns an error if a metric cannot be encoded, which is a mistake in this module.
    pub fn encode(&self) -> prometheus::Result<(String, String)> {
        let encoder = TextEncoder::new();
        let text = encoder.encode_to_string(&self.registry.gather())?;
        Ok((text, encoder.format_type().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_and_statuses_add_no_labels() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.route("example.com", "/");
        for method in ["GET", "PROPFIND", "X-1", "X-2", "get"] {
            route.request(&Method::from_bytes(method.as_bytes()).unwrap());
        }
        for status in [200, 204, 404, 503, 999] {
            metrics.response(&route, status);
        }
        let (text, _) = metrics.encode().unwrap();
        for line in [
            r#"proxy_requests_total{method="GET",route="/",vhost="example.com"} 1"#,
            r#"proxy_requests_total{method="other",route="/",vhost="example.com"} 4"#,
            r#"proxy_responses_total{route="/",status="2xx",vhost="example.com"} 2"#,
            r#"proxy_responses_by_status_total{status="204"} 1"#,
            r#"proxy_responses_by_status_total{status="599"} 1"#,
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert_eq!(metrics.answered(), (5, 2));
    }
}
