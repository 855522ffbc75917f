//! Recent requests, and when each of them came to which phase, for whoever asks the management API.
//!
//! The last requests are kept in a ring. Writing takes no lock that anybody waits for and, once the ring has
//! been filled, next to no memory: a slot's strings are used again. A slot that is being read at the very
//! moment is skipped, and that request is not in the list.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

use super::access_log::Record;

/// How many requests are kept.
const KEPT: usize = 512;
/// How many phases of one request are kept; a request that is retried more often loses the later ones.
const PHASES: usize = 16;

/// A phase, by the name that Pingora has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The request has been routed, and the policies have let it through.
    RequestFilter,
    /// A backend has been chosen.
    UpstreamPeer,
    /// It took a connection, or one was there.
    ConnectedToUpstream,
    /// It could not be reached.
    FailToConnect,
    /// The connection to it broke.
    ErrorWhileProxy,
    /// The request's last byte has passed.
    RequestBodyFilter,
    /// The response's head has come.
    ResponseFilter,
    /// The response's last byte has been sent.
    Logging,
}

/// When one request came to which phase.
#[derive(Clone, Copy, Default)]
pub struct Timeline {
    marks: [Option<(Phase, Duration)>; PHASES],
}

impl Timeline {
    /// Notes that a phase was reached, so long after the request's head.
    pub fn mark(&mut self, phase: Phase, after: Duration) {
        if let Some(free) = self.marks.iter_mut().find(|mark| mark.is_none()) {
            *free = Some((phase, after));
        }
    }
}

/// Where a request was sent; empty where it got nowhere.
#[derive(Clone, Copy, Default)]
pub struct Way<'a> {
    /// The domain of its virtual host.
    pub virtual_host: &'a str,
    /// The name of its route.
    pub route: &'a str,
    /// The tag of its backends.
    pub tag: &'a str,
}

/// The last requests.
pub struct Timelines {
    slots: Box<[Mutex<Option<Entry>>]>,
    next: AtomicUsize,
}

/// What is kept of a request.
#[derive(Default)]
struct Entry {
    /// The how-manieth request of the process it was.
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
    /// The id that went up and down with it.
    pub request_id: String,
    /// When it was over, in seconds since 1970.
    pub ended_at: f64,
    /// Its method.
    pub method: String,
    /// The host that it was for.
    pub host: String,
    /// Its path, without the query.
    pub path: String,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// The domain of the virtual host that served it.
    pub virtual_host: Option<String>,
    /// The route that it took.
    pub route: Option<String>,
    /// The tag whose backends it was for.
    pub tag: Option<String>,
    /// The backend that answered, or was asked last.
    pub backend: Option<String>,
    /// The status that the client got; 499 where it left before.
    pub status: u16,
    /// The bytes of the response's body.
    pub bytes: u64,
    /// How many attempts there were to have a backend answer.
    pub attempts: u32,
    /// What went wrong.
    pub error: Option<String>,
    /// When it came to which phase.
    pub timeline: Vec<Mark>,
}

/// When a request came to a phase.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Mark {
    /// The phase.
    pub phase: Phase,
    /// Milliseconds after the request's head.
    pub at_ms: f64,
}

impl Default for Timelines {
    fn default() -> Self {
        let slots = std::iter::repeat_with(Mutex::default).take(KEPT).collect();
        Timelines { slots, next: AtomicUsize::new(0) }
    }
}

impl Timelines {
    /// Keeps a request that is over.
    pub fn keep(&self, record: &Record<'_>, way: Way<'_>, timeline: &Timeline) {
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
            (&mut entry.virtual_host, way.virtual_host),
            (&mut entry.route, way.route),
            (&mut entry.tag, way.tag),
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

    /// All of them, the newest first.
    pub fn recent(&self) -> Vec<RecentRequest> {
        let read =
            |slot: &Mutex<Option<Entry>>| slot.lock().as_ref().map(|entry| (entry.number, entry.into()));
        let mut numbered: Vec<(usize, RecentRequest)> = self.slots.iter().filter_map(read).collect();
        numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        numbered.into_iter().map(|(_, request)| request).collect()
    }

    /// The one with this id.
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
        let mark = |(phase, after): &(Phase, Duration)| Mark {
            phase: *phase,
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
            timeline: entry.timeline.marks.iter().flatten().map(mark).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        let way = Way { virtual_host: "a.example", route: "/", tag: "a" };
        timelines.keep(&record, way, &timeline);
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

    #[test]
    fn a_request_with_many_attempts_keeps_the_first_phases() {
        let mut timeline = Timeline::default();
        for n in 0..100 {
            timeline.mark(Phase::UpstreamPeer, Duration::from_millis(n));
        }
        assert_eq!(timeline.marks.iter().flatten().count(), PHASES);
    }
}
