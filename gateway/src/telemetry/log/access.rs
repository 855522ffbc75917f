//! Access log: one line for each request, as text, as JSON or after a template. The lines go to the same output as the
//! process log, or to a file of their own.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::queue::Sender;
use super::timestamp::Timestamp;
use super::values::Value;
use crate::config::{AccessField, AccessFormat, LinePart, Logging, StatusClass};
use crate::telemetry::record::{MAX_USER, Record, beginning};

/// Writer of the access log.
pub struct AccessLog {
    line: Line,
    /// Share of requests that are logged, in percent, by the first digit of their status.
    sampled: [u8; 10],
    sender: Sender,
}

/// Layout of a line.
enum Line {
    /// Line of text with the usual fields.
    Text,
    /// JSON object with the usual fields.
    Json,
    /// Line of text with these fields, each with its name.
    TextOf(Vec<(String, AccessField)>),
    /// JSON object with these fields, each with its name.
    JsonOf(Vec<(String, AccessField)>),
    /// Line after a template.
    Template(Vec<LinePart>),
}

#[derive(Serialize)]
struct JsonLine<'a> {
    timestamp: &'a str,
    level: &'static str,
    target: &'static str,
    message: &'a str,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    duration_ms: f64,
    request_id: &'a str,
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    backend: Option<&'a str>,
    bytes: u64,
    bytes_received: u64,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Default)]
struct Buffers {
    timestamp: Timestamp,
    message: String,
    line: Vec<u8>,
}

thread_local! {
    /// Buffers in which a line is composed, so that a line needs no allocation.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl AccessLog {
    pub(super) fn new(config: &Logging, format: AccessFormat, sender: Sender) -> Self {
        let named = |field: &AccessField| {
            let name = serde_json::to_value(field).ok();
            (name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned(), *field)
        };
        let fields: Vec<_> = config.access_fields.iter().map(named).collect();
        let line = match (format, fields.is_empty()) {
            (AccessFormat::Text, true) => Line::Text,
            (AccessFormat::Text, false) => Line::TextOf(fields),
            (AccessFormat::Json, true) => Line::Json,
            (AccessFormat::Json, false) => Line::JsonOf(fields),
            (AccessFormat::Template(parts), _) => Line::Template(parts),
        };
        let share = |hundreds: u16| {
            let class = StatusClass::of(hundreds * 100);
            class.and_then(|class| config.access_sample_percent.get(&class)).copied().unwrap_or(100)
        };
        AccessLog { line, sampled: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(share), sender }
    }

    /// Returns true if lines show the times of the attempt, so that the phases of requests must be recorded.
    pub fn shows_phases(&self) -> bool {
        let has_time = |field: &AccessField| {
            use AccessField::{UpstreamConnectMs, UpstreamMs, UpstreamResponseMs};
            matches!(field, UpstreamConnectMs | UpstreamResponseMs | UpstreamMs)
        };
        match &self.line {
            Line::Text | Line::Json => false,
            Line::TextOf(fields) | Line::JsonOf(fields) => fields.iter().any(|(_, field)| has_time(field)),
            Line::Template(parts) => {
                parts.iter().any(|part| matches!(part, LinePart::Field(field) if has_time(field)))
            }
        }
    }

    /// Queues the line of one request, unless sampling leaves it out.
    pub fn write(&self, record: &Record<'_>) {
        let share = self.sampled.get(usize::from(record.status / 100)).copied().unwrap_or(100);
        if share < 100 && fastrand::u8(..100) >= share {
            return;
        }
        BUFFERS.with_borrow_mut(|buffers| {
            if format_line(&self.line, record, buffers).is_ok() {
                self.sender.send(&buffers.line);
            }
        });
    }
}

fn format_line(layout: &Line, record: &Record<'_>, buffers: &mut Buffers) -> std::io::Result<()> {
    let Buffers { timestamp, message, line } = buffers;
    let timestamp = timestamp.now();
    message.clear();
    line.clear();
    let duration_ms = (record.duration.as_secs_f64() * 1_000_000.0).round() / 1000.0;
    let Record { method, host, path, status, grpc_status, request_id, backend, .. } = *record;
    let Record { bytes, bytes_received, attempts, error, .. } = *record;
    let user = record.user.map(|user| beginning(user, MAX_USER));
    match layout {
        Line::Json => {
            let _ = write!(message, "{method} {path} {status}");
            let (level, target, client) = ("INFO", "access", record.client);
            serde_json::to_writer(
                &mut *line,
                &JsonLine {
                    timestamp,
                    level,
                    target,
                    message,
                    method,
                    host,
                    path,
                    status,
                    grpc_status,
                    duration_ms,
                    request_id,
                    client,
                    user,
                    backend,
                    bytes,
                    bytes_received,
                    attempts,
                    error,
                },
            )?;
        }
        Line::Text => {
            // The client may send any bytes in the host, and non-ASCII bytes in the path. Because both are escaped
            // and quoted, they can forge neither a line nor a field.
            let path = path.escape_debug();
            write!(line, "{timestamp}  INFO access: {method} {path} {status} {duration_ms:.1}ms")?;
            write!(line, " backend={} bytes={bytes} client=", backend.unwrap_or("-"))?;
            match record.client {
                Some(client) => write!(line, "{client}")?,
                None => write!(line, "-")?,
            }
            if let Some(user) = user {
                write!(line, " user={user:?}")?;
            }
            write!(line, " host={host:?} request_id={request_id}")?;
            if bytes_received > 0 {
                write!(line, " received={bytes_received}")?;
            }
            if let Some(status) = grpc_status {
                write!(line, " grpc_status={status}")?;
            }
            if attempts > 1 {
                write!(line, " attempts={attempts}")?;
            }
            if let Some(error) = error {
                write!(line, " error={error:?}")?;
            }
        }
        Line::JsonOf(fields) => {
            let values = fields.iter().map(|(name, field)| (name, Value::of(*field, record, timestamp)));
            (&mut serde_json::Serializer::new(&mut *line)).collect_map(values)?;
        }
        Line::TextOf(fields) => {
            for (i, (name, field)) in fields.iter().enumerate() {
                let space = if i > 0 { " " } else { "" };
                write!(line, "{space}{name}=")?;
                Value::of(*field, record, timestamp).write_text(line)?;
            }
        }
        Line::Template(parts) => {
            for part in parts {
                match part {
                    LinePart::Text(text) => line.extend_from_slice(text.as_bytes()),
                    LinePart::Field(field) => Value::of(*field, record, timestamp).write_escaped(line)?,
                }
            }
        }
    }
    line.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::time::Duration;

    use pingora::http::RequestHeader;

    use super::*;
    use crate::config::LogFormat;
    use crate::telemetry::record::{Phase, Timeline, Way};

    static REQUEST: LazyLock<RequestHeader> = LazyLock::new(|| {
        let mut request = RequestHeader::build("GET", b"/x?page=2&token=abc", None).unwrap();
        request.insert_header("user-agent", "curl \"8\"").unwrap();
        request
    });

    fn line(format: LogFormat, record: &Record<'_>) -> String {
        let layout = if format == LogFormat::Json { Line::Json } else { Line::Text };
        line_of(&layout, record)
    }

    fn line_of(layout: &Line, record: &Record<'_>) -> String {
        let mut buffers = Buffers::default();
        format_line(layout, record, &mut buffers).unwrap();
        String::from_utf8(buffers.line).unwrap()
    }

    fn record<'a>() -> Record<'a> {
        Record {
            method: "GET",
            host: "a.example",
            path: "/x",
            status: 502,
            grpc_status: None,
            duration: Duration::from_micros(12_345),
            request_id: "id-1",
            client: Some("127.0.0.1".parse().unwrap()),
            user: None,
            backend: Some("web-1"),
            bytes: 66,
            bytes_received: 0,
            attempts: 2,
            error: Some("connection \"refused\""),
            way: Way { virtual_host: "a.example", route: "/x", tag: "web" },
            request: &REQUEST,
            tls: None,
            server_name: None,
            timeline: None,
        }
    }

    #[test]
    fn json_lines_are_objects_with_the_documented_fields() {
        let line = line(LogFormat::Json, &record());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (field, expected) in [
            ("level", "INFO"),
            ("message", "GET /x 502"),
            ("method", "GET"),
            ("path", "/x"),
            ("client", "127.0.0.1"),
            ("backend", "web-1"),
            ("request_id", "id-1"),
            ("error", "connection \"refused\""),
        ] {
            assert_eq!(value[field], expected, "{field}");
        }
        assert_eq!(value["status"], 502);
        assert_eq!(value["bytes"], 66);
        assert_eq!(value["duration_ms"], 12.345);
        assert!(value["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn user_name_is_shortened_and_cannot_forge_fields() {
        let name = format!("a\" error=\"x\n{}", "é".repeat(200));
        let mut record = record();
        record.user = Some(&name);
        let text = line(LogFormat::Text, &record);
        assert!(text.contains(" user=\"a\\\" error=\\\"x\\néé") && text.lines().count() == 1, "{text}");
        let json: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, &record)).unwrap();
        let told = json["user"].as_str().unwrap();
        assert!(name.starts_with(told) && told.len() > 100 && told.len() <= MAX_USER, "{told}");
    }

    #[test]
    fn text_lines_cannot_be_forged_by_a_host() {
        let mut record = record();
        record.host = "a request_id=forged\n2026 INFO access: forged";
        let line = line(LogFormat::Text, &record);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.contains("GET /x 502 12.3ms backend=web-1 bytes=66 client=127.0.0.1"), "{line}");
        assert!(
            line.contains("host=\"a request_id=forged\\n2026 INFO access: forged\" request_id=id-1"),
            "{line}"
        );
        assert!(line.contains("attempts=2 error=\"connection \\\"refused\\\"\""), "{line}");
    }

    /// Returns the access log that `[logging]` with these keys describes.
    fn access_log(keys: &str) -> AccessLog {
        let config: Logging = toml::from_str(keys).unwrap();
        let output = crate::telemetry::log::output::Output::console(Default::default());
        let (sender, _writer) = crate::telemetry::log::queue::start(output, config.when_full).unwrap();
        AccessLog::new(&config, config.access_format().unwrap(), sender)
    }

    #[test]
    fn chosen_fields_are_shown_in_their_order() {
        let mut timeline = Timeline::default();
        for (phase, ms) in [
            (Phase::UpstreamPeer, 1),
            (Phase::ConnectedToUpstream, 2),
            (Phase::UpstreamPeer, 4),
            (Phase::ConnectedToUpstream, 7),
            (Phase::ResponseFilter, 12),
        ] {
            timeline.mark(phase, Duration::from_millis(ms));
        }
        let record = Record { timeline: Some(&timeline), ..record() };
        let fields = "access_fields = [\"status\", \"query\", \"user_agent\", \"tag\", \"server_name\", \
                      \"upstream_connect_ms\", \"upstream_response_ms\", \"upstream_ms\"]";
        let text = access_log(fields);
        assert!(text.shows_phases());
        assert_eq!(
            line_of(&text.line, &record),
            "status=502 query=page=2&token=*** user_agent=\"curl \\\"8\\\"\" tag=web server_name=- \
             upstream_connect_ms=3.000 upstream_response_ms=5.000 upstream_ms=8.345\n"
        );
        let json = access_log(&format!("format = \"json\"\n{fields}"));
        assert_eq!(
            line_of(&json.line, &record),
            "{\"status\":502,\"query\":\"page=2&token=***\",\"user_agent\":\"curl \\\"8\\\"\",\"tag\":\"web\",\
             \"server_name\":null,\"upstream_connect_ms\":3.0,\"upstream_response_ms\":5.0,\"upstream_ms\":8.345}\n"
        );
    }

    #[test]
    fn combined_format_is_that_of_apache_and_nginx() {
        let line = line_of(&access_log("access_format = \"combined\"").line, &record());
        let (before, rest) = line.split_once(" [").unwrap();
        let (time, after) = rest.split_once("] ").unwrap();
        assert_eq!((before, time.len()), ("127.0.0.1 - -", "30/Nov/2026:22:15:54 +0000".len()));
        assert_eq!(after, "\"GET /x?page=2&token=*** HTTP/1.1\" 502 66 \"-\" \"curl \\x228\\x22\"\n");
    }

    #[test]
    fn sampling_leaves_out_requests_of_a_class() {
        let log = access_log("access_sample_percent = { \"2xx\" = 0, \"4xx\" = 7 }");
        assert_eq!(&log.sampled[1..6], [100, 0, 100, 7, 100]);
        assert!(!log.shows_phases());
    }
}
