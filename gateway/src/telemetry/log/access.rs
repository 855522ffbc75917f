//! Access log: one line for each request, as text or JSON. The lines go to the same output as the process log.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::queue::Sender;
use crate::config::LogFormat;

/// Maximum length of a user's name in the log, in bytes. The gateway has no control over the names.
const MAX_USER: usize = 128;

/// Writer of the access log.
pub struct AccessLog {
    format: LogFormat,
    sender: Sender,
}

/// Fields of the log line of one request. None of them is secret: no query, no credentials, no body.
pub struct Record<'a> {
    /// Method of the request.
    pub method: &'a str,
    /// Host of the request, as the client wrote it.
    pub host: &'a str,
    /// Path of the request's target, without the query.
    pub path: &'a str,
    /// Status code that the client got; 499 if the client closed the connection before the response. A gRPC call
    /// usually gets 200; for such a call, this is the HTTP status that corresponds to the call's result.
    pub status: u16,
    /// `grpc-status` of a gRPC call; `None` if there is none.
    pub grpc_status: Option<u8>,
    /// Time from the request's head to the last byte of the response.
    pub duration: Duration,
    /// Id of the request, which is also sent to the backend and to the client.
    pub request_id: &'a str,
    /// Address of the client; `None` if it is unknown.
    pub client: Option<IpAddr>,
    /// Name of the authenticated user; `None` if there is none.
    pub user: Option<&'a str>,
    /// Backend that answered, or that got the last attempt; `None` if there was no attempt.
    pub backend: Option<&'a str>,
    /// Number of sent bytes of the response's body; for a WebSocket, number of all bytes that were sent to the
    /// client.
    pub bytes: u64,
    /// Number of received bytes of the request's body; for a WebSocket, number of all bytes that the client sent.
    pub bytes_received: u64,
    /// Number of attempts to have a backend answer the request.
    pub attempts: u32,
    /// Description of the error; `None` if there was none.
    pub error: Option<&'a str>,
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
    timestamp: String,
    message: String,
    line: Vec<u8>,
}

thread_local! {
    /// Buffers in which a line is composed, so that a line needs no allocation.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl AccessLog {
    pub(super) fn new(format: LogFormat, sender: Sender) -> Self {
        AccessLog { format, sender }
    }

    /// Queues the line of one request.
    pub fn write(&self, record: &Record<'_>) {
        BUFFERS.with_borrow_mut(|buffers| {
            if format_line(self.format, record, buffers).is_ok() {
                self.sender.send(&buffers.line);
            }
        });
    }
}

fn format_line(format: LogFormat, record: &Record<'_>, buffers: &mut Buffers) -> std::io::Result<()> {
    let Buffers { timestamp, message, line } = buffers;
    timestamp.clear();
    message.clear();
    line.clear();
    // A write to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(timestamp));
    let duration_ms = (record.duration.as_secs_f64() * 1_000_000.0).round() / 1000.0;
    let Record { method, host, path, status, grpc_status, request_id, backend, .. } = *record;
    let Record { bytes, bytes_received, attempts, error, .. } = *record;
    let user = record.user.map(|user| beginning(user, MAX_USER));
    match format {
        LogFormat::Json => {
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
        LogFormat::Text => {
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
    }
    line.push(b'\n');
    Ok(())
}

/// Returns at most the first `most` bytes of `text`, without splitting a character.
fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, record: &Record<'_>) -> String {
        let mut buffers = Buffers::default();
        format_line(format, record, &mut buffers).unwrap();
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
}
