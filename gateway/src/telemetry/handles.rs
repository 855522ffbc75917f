//! What a request counts with: handles of metrics, looked up once, so that counting is one atomic addition.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use http::Method;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::Metrics;
use super::auth::RefusalMetrics;
use crate::grpc::Status;

/// The methods that have a label of their own; all others share `other`, or a client could make labels.
pub(super) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The classes of status, as labels.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// A counter for each class of status.
pub(super) struct ByClass(pub(super) [IntCounter; CLASSES.len()]);

impl ByClass {
    pub(super) fn count(&self, status: u16) {
        let class = usize::from(status / 100);
        if let Some(counter) = class.checked_sub(1).and_then(|class| self.0.get(class)) {
            counter.inc();
        }
    }
}

/// The handles of one route.
pub struct RouteMetrics {
    pub(super) requests: [IntCounter; METHODS.len() + 1],
    pub(super) responses: ByClass,
    /// From the request's head to the response's head, in seconds.
    pub latency: Histogram,
    /// From the request's head to the response's last byte, in milliseconds.
    pub duration_ms: Histogram,
    /// Attempts after the first.
    pub retries: IntCounter,
    /// Retries that there was no budget for.
    pub retries_refused: IntCounter,
    /// Requests not let through because of who asks.
    pub refusals: RefusalMetrics,
    /// Requests held up on purpose.
    pub faults_delayed: IntCounter,
    /// Requests answered in place of a backend, on purpose.
    pub faults_aborted: IntCounter,
    /// Copies of requests.
    pub mirror: MirrorMetrics,
    /// How calls of gRPC ended.
    pub grpc: GrpcMetrics,
}

/// A counter for each status of gRPC. Most routes see no call at all, and a call ends in one of two or three ways:
/// each is looked up when it is needed first.
pub struct GrpcMetrics {
    pub(super) family: IntCounterVec,
    pub(super) labels: [String; 2],
    pub(super) counters: [OnceLock<IntCounter>; GRPC_STATUSES],
}

/// So many ways there are to end, as labels: the numbers, and "none" where no status was seen.
pub(super) const GRPC_STATUSES: usize = Status::COUNT + 1;

/// The label of the one at `index`.
pub(super) fn grpc_label(index: usize) -> String {
    if index < Status::COUNT { index.to_string() } else { "none".to_owned() }
}

impl GrpcMetrics {
    /// Counts a call that has ended.
    pub fn ended(&self, status: Option<Status>) {
        let index = status.map_or(Status::COUNT, |status| status.code().into());
        let Some(counter) = self.counters.get(index) else { return };
        let [vhost, route] = &self.labels;
        counter.get_or_init(|| self.family.with_label_values(&[vhost, route, &grpc_label(index)])).inc();
    }
}

/// What became of copies of requests.
#[derive(Clone)]
pub struct MirrorMetrics {
    /// They were answered, and not with 5xx.
    pub answered: IntCounter,
    /// They were not.
    pub failed: IntCounter,
    /// They were not sent: too many were under way, too much body, or no backend.
    pub dropped: IntCounter,
}

impl RouteMetrics {
    /// Counts a request as it arrives.
    pub fn request(&self, method: &Method) {
        let index = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len());
        self.requests[index].inc();
    }
}

/// The handles of one tag of a virtual host that shares its requests.
pub struct TagMetrics {
    pub(super) responses: ByClass,
    /// From the request's head to the response's head, in seconds.
    pub(super) latency: Histogram,
}

/// What a tag has answered so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TagTotals {
    /// Answers.
    pub answered: u64,
    /// Those among them that were 5xx.
    pub failed: u64,
    /// The time that their heads took, all together, in seconds.
    pub latency_secs: f64,
}

impl TagMetrics {
    /// Counts a response, and how long its head took, in seconds.
    pub fn response(&self, status: u16, latency_secs: f64) {
        self.responses.count(status);
        self.latency.observe(latency_secs);
    }

    /// What has been counted so far.
    pub fn totals(&self) -> TagTotals {
        let ByClass([.., failed]) = &self.responses;
        TagTotals {
            answered: self.responses.0.iter().map(IntCounter::get).sum(),
            failed: failed.get(),
            latency_secs: self.latency.get_sample_sum(),
        }
    }
}

/// Handles that are looked up when they are needed first: a host that nobody asks for costs nothing, of ten
/// thousand hosts either.
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
