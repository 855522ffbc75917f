//! Recent requests with the times at which they reached their phases, for the management API.
//!
//! The last requests are kept in a ring. A writer never waits for a lock: a request is left out if its slot is being
//! read at that moment. When the ring is full, a write allocates almost no memory, because the strings of a slot are
//! reused.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

use super::record::{Phase, Record, Timeline};

/// Number of requests that are kept.
const KEPT: usize = 512;
/// Ring of the last requests.
pub struct Timelines {
    slots: Box<[Mutex<Option<Entry>>]>,
    next: AtomicUsize,
}

/// Stored data of one request.
#[derive(Default)]
struct Entry {
    /// Sequence number of the request in this process.
    number: usize,
    ended: Option<SystemTime>,
    request_id: String,
    method: String,
    host: String,
    path: String,
    virtual_host: String,
    route: String,
    tag: String,
    backend: Option<String>,
    client: Option<IpAddr>,
    status: u16,
    bytes: u64,
    attempts: u32,
    error: Option<String>,
    timeline: Timeline,
}

/// A recent request.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RecentRequest {
    /// Id of the request, which is also sent to the backend and to the client.
    pub request_id: String,
    /// Time of the end of the request, in seconds since 1970.
    pub ended_at: f64,
    /// Method of the request.
    pub method: String,
    /// Host of the request, as the client wrote it.
    pub host: String,
    /// Path of the request, without the query.
    pub path: String,
    /// Address of the client; null if it is unknown.
    pub client: Option<IpAddr>,
    /// Domain of the virtual host that served the request; null if none matched.
    pub virtual_host: Option<String>,
    /// Route of the request; null if none matched.
    pub route: Option<String>,
    /// Tag of the backends for the request; null if there is none.
    pub tag: Option<String>,
    /// Backend that answered, or that got the last attempt; null if there was no attempt.
    pub backend: Option<String>,
    /// Status code that the client got; 499 if the client closed the connection before the response.
    pub status: u16,
    /// Number of bytes of the response's body.
    pub bytes: u64,
    /// Number of attempts to get a response from a backend.
    pub attempts: u32,
    /// Description of the error; null if there was none.
    pub error: Option<String>,
    /// Phases that the request has reached, each with its time.
    pub timeline: Vec<Mark>,
}

/// Time at which a request reached a phase.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Mark {
    /// Phase that was reached.
    pub phase: Phase,
    /// Time from the request's head to the phase, in milliseconds.
    pub at_ms: f64,
}

impl Default for Timelines {
    fn default() -> Self {
        let slots = std::iter::repeat_with(Mutex::default).take(KEPT).collect();
        Timelines { slots, next: AtomicUsize::new(0) }
    }
}

impl Timelines {
    /// Adds a request that has ended.
    pub fn keep(&self, record: &Record<'_>, timeline: &Timeline) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(mut slot) = self.slots[number % KEPT].try_lock() else { return };
        let entry = slot.get_or_insert_default();
        entry.number = number;
        entry.ended = Some(SystemTime::now());
        for (kept, text) in [
            (&mut entry.request_id, record.request_id),
            (&mut entry.method, record.method),
            (&mut entry.host, record.host),
            (&mut entry.path, record.path),
            (&mut entry.virtual_host, record.way.virtual_host),
            (&mut entry.route, record.way.route),
            (&mut entry.tag, record.way.tag),
        ] {
            kept.clear();
            kept.push_str(text);
        }
        for (kept, text) in [(&mut entry.backend, record.backend), (&mut entry.error, record.error)] {
            match (kept.as_mut(), text) {
                (Some(kept), Some(text)) => {
                    kept.clear();
                    kept.push_str(text);
                }
                (_, text) => *kept = text.map(str::to_owned),
            }
        }
        entry.client = record.client;
        entry.status = record.status;
        entry.bytes = record.bytes;
        entry.attempts = record.attempts;
        entry.timeline = *timeline;
        entry.timeline.mark(Phase::Logging, record.duration);
    }

    /// Returns all kept requests, the newest first.
    pub fn recent(&self) -> Vec<RecentRequest> {
        let read =
            |slot: &Mutex<Option<Entry>>| slot.lock().as_ref().map(|entry| (entry.number, entry.into()));
        let mut numbered: Vec<(usize, RecentRequest)> = self.slots.iter().filter_map(read).collect();
        numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        numbered.into_iter().map(|(_, request)| request).collect()
    }

    /// Returns the request with this id; `None` if it is not kept.
    pub fn find(&self, request_id: &str) -> Option<RecentRequest> {
        let find = |slot: &Mutex<Option<Entry>>| {
            slot.lock().as_ref().filter(|entry| entry.request_id == request_id).map(RecentRequest::from)
        };
        self.slots.iter().find_map(find)
    }
}

impl From<&Entry> for RecentRequest {
    fn from(entry: &Entry) -> Self {
        let named = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let since = entry.ended.and_then(|ended| ended.duration_since(UNIX_EPOCH).ok());
        let mark = |(phase, after): (Phase, Duration)| Mark {
            phase,
            at_ms: (after.as_secs_f64() * 1e6).round() / 1e3,
        };
        RecentRequest {
            request_id: entry.request_id.clone(),
            ended_at: since.map_or(0.0, |since| (since.as_secs_f64() * 1e3).round() / 1e3),
            method: entry.method.clone(),
            host: entry.host.clone(),
            path: entry.path.clone(),
            client: entry.client,
            virtual_host: named(&entry.virtual_host),
            route: named(&entry.route),
            tag: named(&entry.tag),
            backend: entry.backend.clone(),
            status: entry.status,
            bytes: entry.bytes,
            attempts: entry.attempts,
            error: entry.error.clone(),
            timeline: entry.timeline.marks().map(mark).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pingora::http::RequestHeader;

    use super::*;
    use crate::telemetry::record::Way;

    fn keep(timelines: &Timelines, id: &str, backend: Option<&str>) {
        let mut timeline = Timeline::default();
        timeline.mark(Phase::RequestFilter, Duration::from_micros(120));
        let record = Record {
            method: "GET",
            host: "a.example",
            path: "/x",
            status: 200,
            grpc_status: None,
            duration: Duration::from_micros(1_500),
            request_id: id,
            client: None,
            user: None,
            backend,
            bytes: 7,
            bytes_received: 0,
            attempts: 1,
            error: None,
            way: Way { virtual_host: "a.example", route: "/", tag: "a" },
            request: &RequestHeader::build("GET", b"/x", None).unwrap(),
            tls: None,
            server_name: None,
            timeline: None,
        };
        timelines.keep(&record, &timeline);
    }

    #[test]
    fn the_last_requests_are_kept_the_newest_first() {
        let timelines = Timelines::default();
        for n in 0..KEPT + 3 {
            keep(&timelines, &format!("id-{n}"), (n % 2 == 0).then_some("web-1"));
        }
        let recent = timelines.recent();
        assert_eq!(recent.len(), KEPT);
        assert_eq!(recent[0].request_id, format!("id-{}", KEPT + 2));
        assert_eq!(recent[KEPT - 1].request_id, "id-3");
        assert!(timelines.find("id-2").is_none(), "what is older is gone");
        let found = timelines.find("id-4").unwrap();
        assert_eq!((found.backend.as_deref(), found.route.as_deref()), (Some("web-1"), Some("/")));
        assert_eq!(timelines.find("id-5").unwrap().backend, None);
    }

    #[test]
    fn phases_are_named_as_pingora_names_them() {
        let timelines = Timelines::default();
        keep(&timelines, "id", None);
        let json = serde_json::to_value(timelines.find("id")).unwrap();
        assert_eq!(json["timeline"][0], serde_json::json!({"phase": "request_filter", "at_ms": 0.12}));
        assert_eq!(json["timeline"][1], serde_json::json!({"phase": "logging", "at_ms": 1.5}));
    }
}
