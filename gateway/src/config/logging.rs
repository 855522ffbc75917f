//! `[logging]`: the process log and the access log.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NameError;
use serde::{Deserialize, Serialize};

use super::values::is_default;

/// `[logging]`: level, format and output of the process log and the access log.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// Log level: trace, debug, info, warn, error, or a filter such as "info,gateway=debug".
    pub level: String,
    /// Format of a log line.
    pub format: LogFormat,
    /// Destination of log lines.
    pub output: LogOutput,
    /// Path of the log file; only used if `output` is `file`.
    pub file_path: String,
    /// What happens to a line that does not fit into the queue, because the output is too slow.
    pub when_full: WhenFull,
    /// True if the gateway logs each request in one line; false: there is no access log.
    pub access_log: bool,
    /// Format of the access log: `text`, `json`, `combined`, or a template such as `{client} {status}`; empty: that of
    /// `format`.
    pub access_format: String,
    /// Fields of a line of the access log, in their order; empty: the usual ones. Only used by `text` and `json`.
    pub access_fields: Vec<AccessField>,
    /// Share of requests that are logged, by the class of their status, in percent; a class that is absent: all.
    #[serde(skip_serializing_if = "is_default")]
    pub access_sample_percent: BTreeMap<StatusClass, u8>,
    /// Path of the access log's own file; empty: the access log goes where the process log goes.
    pub access_file_path: String,
}

impl Default for Logging {
    fn default() -> Self {
        Logging {
            level: "info".to_owned(),
            format: LogFormat::Text,
            output: LogOutput::Console,
            file_path: "gateway.log".to_owned(),
            when_full: WhenFull::Drop,
            access_log: true,
            access_format: String::new(),
            access_fields: Vec::new(),
            access_sample_percent: BTreeMap::new(),
            access_file_path: String::new(),
        }
    }
}

/// Format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Line of text for human readers.
    Text,
    /// JSON object on one line.
    Json,
}

/// What happens to a log line that does not fit into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The line is dropped and counted.
    Drop,
    /// The thread that logs waits until the line fits. Requests then wait for the disk.
    Wait,
}

/// Destination of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogOutput {
    /// Standard output.
    Console,
    /// File at `file_path`; lines are appended.
    File,
}

/// Class of a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum StatusClass {
    /// 100 to 199: a switch to the WebSocket protocol.
    #[serde(rename = "1xx")]
    Informational,
    /// 200 to 299.
    #[serde(rename = "2xx")]
    Success,
    /// 300 to 399.
    #[serde(rename = "3xx")]
    Redirection,
    /// 400 to 499.
    #[serde(rename = "4xx")]
    ClientError,
    /// 500 to 599.
    #[serde(rename = "5xx")]
    ServerError,
}

impl StatusClass {
    /// Returns the class of `status`; `None` for a number that is not the status of a response.
    pub fn of(status: u16) -> Option<Self> {
        Some(match status {
            100..200 => StatusClass::Informational,
            200..300 => StatusClass::Success,
            300..400 => StatusClass::Redirection,
            400..500 => StatusClass::ClientError,
            500..600 => StatusClass::ServerError,
            _ => return None,
        })
    }
}

/// Field of a line of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessField {
    /// Time of the request's end (RFC 3339).
    Timestamp,
    /// Time of the request's end, as in the Common Log Format: `30/Nov/2026:22:15:54 +0000`.
    TimeLocal,
    /// First line of the request: method, target with the query, and protocol.
    Request,
    /// Method of the request.
    Method,
    /// Host of the request, as the client wrote it.
    Host,
    /// Path of the request, without the query.
    Path,
    /// Query of the request. Values of parameters that may be secret are replaced with `***`.
    Query,
    /// Protocol between client and gateway: HTTP/1.0, HTTP/1.1 or HTTP/2.0.
    Protocol,
    /// Status that the client got; 499 if it left before.
    Status,
    /// `grpc-status` of a gRPC call.
    GrpcStatus,
    /// Time from the request's head to the last byte of the response, in milliseconds.
    DurationMs,
    /// Id of the request.
    RequestId,
    /// Address of the client.
    Client,
    /// Name of the authenticated user.
    User,
    /// Domain of the virtual host.
    VirtualHost,
    /// Name of the route.
    Route,
    /// Tag of the pool.
    Tag,
    /// Backend that answered, or that got the last attempt.
    Backend,
    /// Number of sent bytes of the response's body.
    Bytes,
    /// Number of received bytes of the request's body.
    BytesReceived,
    /// Number of attempts to have a backend answer.
    Attempts,
    /// Description of the error.
    Error,
    /// User-Agent field of the request.
    UserAgent,
    /// Referer field of the request.
    Referer,
    /// Version of TLS.
    TlsVersion,
    /// Cipher suite of TLS.
    TlsCipher,
    /// Host that the client named in the TLS handshake (SNI).
    ServerName,
    /// Time to get a connection to the backend of the last attempt, in milliseconds.
    UpstreamConnectMs,
    /// Time from that connection to the head of the backend's response, in milliseconds.
    UpstreamResponseMs,
    /// Time from the choice of the last backend to the end of the response, in milliseconds.
    UpstreamMs,
}

/// Part of a template for lines of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinePart {
    /// Text that stands in each line.
    Text(String),
    /// Field of the request.
    Field(AccessField),
}

/// Format of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// Line of text for human readers.
    Text,
    /// JSON object on one line.
    Json,
    /// Line after a template.
    Template(Vec<LinePart>),
}

/// Template of the combined log format, which Apache and nginx write too.
const COMBINED: &str =
    r#"{client} - {user} [{time_local}] "{request}" {status} {bytes} "{referer}" "{user_agent}""#;

impl Logging {
    /// Returns the format of the access log.
    ///
    /// # Errors
    /// Returns a text for the operator if `access_format` is neither a known format nor a template of known fields.
    pub fn access_format(&self) -> Result<AccessFormat, String> {
        Ok(match (self.access_format.as_str(), self.format) {
            ("text", _) | ("", LogFormat::Text) => AccessFormat::Text,
            ("json", _) | ("", LogFormat::Json) => AccessFormat::Json,
            ("combined", _) => AccessFormat::Template(template(COMBINED)?),
            (text, _) if text.contains('{') => AccessFormat::Template(template(text)?),
            (other, _) => {
                return Err(format!(
                    "'{other}' is not a format; expected text, json, combined, or a template like \
                     \"{{client}} {{method}} {{path}} {{status}}\""
                ));
            }
        })
    }
}

fn template(text: &str) -> Result<Vec<LinePart>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(format!("'{{{after}' has no closing brace"))?;
        let field = AccessField::deserialize(name.into_deserializer());
        parts.push(LinePart::Text(before.to_owned()));
        parts.push(LinePart::Field(
            field.map_err(|error: NameError| error.to_string().replacen("variant", "field", 1))?,
        ));
        rest = after;
    }
    parts.push(LinePart::Text(rest.to_owned()));
    if text.contains(['\n', '\r']) {
        return Err("a line of the access log must not contain a line break".to_owned());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_consist_of_text_and_known_fields() {
        let format =
            |text: &str| Logging { access_format: text.to_owned(), ..Logging::default() }.access_format();
        let Ok(AccessFormat::Template(parts)) = format("a {status}b") else { panic!() };
        let text = |text: &str| LinePart::Text(text.to_owned());
        assert_eq!(parts, [text("a "), LinePart::Field(AccessField::Status), text("b")]);
        assert!(matches!(format("combined"), Ok(AccessFormat::Template(_))));
        for (wrong, fault) in [
            ("common", "'common' is not a format"),
            ("{statu}", "unknown field `statu`"),
            ("{status", "no closing brace"),
            ("{status}\n", "line break"),
        ] {
            assert!(format(wrong).unwrap_err().contains(fault), "{wrong}");
        }
    }
}
