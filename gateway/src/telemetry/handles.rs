//! Handles of the metrics of a request. They are looked up once, so that an update is one atomic addition.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use http::Method;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::Metrics;
use super::auth::RefusalMetrics;
use crate::grpc::Status;

/// Methods that are labels. Other methods count as `other`, so that clients cannot create any number of labels.
pub(super) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Labels of the classes of status codes.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters of responses by the class of the status code.
pub(super) struct ByClass(pub(super) [IntCounter; CLASSES.len()]);

impl ByClass {
    pub(super) fn count(&self, status: u16) {
        let class = usize::from(status / 100);
        if let Some(counter) = class.checked_sub(1).and_then(|class| self.0.get(class)) {
            counter.inc();
        }
    }
}

/// Metric handles of one route.
pub struct RouteMetrics {
    pub(super) requests: [IntCounter; METHODS.len() + 1],
    pub(super) responses: ByClass,
    /// Time from the request's head to the response's head, in seconds.
    pub latency: Histogram,
    /// Time from the request's head to the response's last byte, in milliseconds.
    pub duration_ms: Histogram,
    /// Number of attempts after the first.
    pub retries: IntCounter,
    /// Number of retries that did not happen because the budget was used up.
    pub retries_refused: IntCounter,
    /// Denied requests, by reason.
    pub refusals: RefusalMetrics,
    /// Number of requests that were delayed on purpose.
    pub faults_delayed: IntCounter,
    /// Number of requests that the gateway answered with an error on purpose, in place of a backend.
    pub faults_aborted: IntCounter,
    /// Copies of requests, by result.
    pub mirror: MirrorMetrics,
    /// Ended gRPC calls, by status.
    pub grpc: GrpcMetrics,
}

/// Counters of ended gRPC calls, by status. Most routes get no calls at all, and calls end with only two or three
/// statuses. So each counter is looked up when it is first needed.
pub struct GrpcMetrics {
    pub(super) family: IntCounterVec,
    pub(super) labels: [String; 2],
    pub(super) counters: [OnceLock<IntCounter>; GRPC_STATUSES],
}

/// Number of label values for the status of a call: the status codes, and "none" if no status was seen.
pub(super) const GRPC_STATUSES: usize = Status::COUNT + 1;

/// Returns the label value at `index`.
pub(super) fn grpc_label(index: usize) -> String {
    if index < Status::COUNT { index.to_string() } else { "none".to_owned() }
}

impl GrpcMetrics {
    /// Counts a call that ended with `status`; `None` if no status was seen.
    pub fn ended(&self, status: Option<Status>) {
        let index = status.map_or(Status::COUNT, |status| status.code().into());
        let Some(counter) = self.counters.get(index) else { return };
        let [vhost, route] = &self.labels;
        counter.get_or_init(|| self.family.with_label_values(&[vhost, route, &grpc_label(index)])).inc();
    }
}

/// Counters of copies of requests, by result.
#[derive(Clone)]
pub struct MirrorMetrics {
    /// Copies that got a response other than 5xx.
    pub answered: IntCounter,
    /// Copies that got no response, or a 5xx.
    pub failed: IntCounter,
    /// Copies that were not sent: too many were in flight, the body was too large, or no backend was usable.
    pub dropped: IntCounter,
}

impl RouteMetrics {
    /// Counts a request as it arrives.
    pub fn request(&self, method: &Method) {
        let index = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len());
        self.requests[index].inc();
    }
}

/// Metric handles of one tag of a virtual host that splits its requests between tags.
pub struct TagMetrics {
    pub(super) responses: ByClass,
    /// Time from the request's head to the response's head, in seconds.
    pub(super) latency: Histogram,
}

/// Totals of a tag's responses since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TagTotals {
    /// Number of responses.
    pub answered: u64,
    /// Number of 5xx responses among them.
    pub failed: u64,
    /// Sum of the times from the request's head to the response's head, in seconds.
    pub latency_secs: f64,
}

impl TagMetrics {
    /// Counts a response. `latency_secs` is the time from the request's head to the response's head.
    pub fn response(&self, status: u16, latency_secs: f64) {
        self.responses.count(status);
        self.latency.observe(latency_secs);
    }

    /// Returns the totals so far.
    pub fn totals(&self) -> TagTotals {
        let ByClass([.., failed]) = &self.responses;
        TagTotals {
            answered: self.responses.0.iter().map(IntCounter::get).sum(),
            failed: failed.get(),
            latency_secs: self.latency.get_sample_sum(),
        }
    }
}

/// Metric handles that are looked up when they are first needed. So a host without requests costs nothing, even if
/// there are ten thousand such hosts.
pub struct Lazy<T> {
    metrics: Arc<Metrics>,
    labels: [String; 2],
    find: fn(&Metrics, &str, &str) -> T,
    handles: OnceLock<T>,
}

impl<T> Lazy<T> {
    pub(super) fn new(metrics: Arc<Metrics>, labels: [&str; 2], find: fn(&Metrics, &str, &str) -> T) -> Self {
        Lazy { metrics, labels: labels.map(str::to_owned), find, handles: OnceLock::new() }
    }
}

impl<T> Deref for Lazy<T> {
    type Target = T;
    fn deref(&self) -> &T {
        let [first, second] = &self.labels;
        self.handles.get_or_init(|| (self.find)(&self.metrics, first, second))
    }
}
